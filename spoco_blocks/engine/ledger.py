"""What is done: an append-only file per shard of work.

A block's record is committed only after its voxels are on disk, so the record is the done marker. A file starts with
one JSON line that names its identity (the digest of settings, inputs, stage version and grid); records of another
identity are never reused. Then come frames: a run began, blocks were handed out, a block is done (its tables), a block
failed (why). What a crash tore off is cut away at the next start. One writer per file, held by a lock that dies with
its process; whoever only reads, as `spoco-blocks status` does, takes no lock.
"""

from __future__ import annotations

import json
import os
import time
import weakref
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.engine.frames import (
    DONE,
    FAILED,
    RUN,
    STARTED,
    Tables,
    frame_bytes,
    header_line,
    is_of_another,
    pack,
    read_frames,
    unpack,
)
from spoco_blocks.engine.lock import PATIENCE_S, acquire, held
from spoco_blocks.errors import LedgerError

__all__ = ["Ledger", "Records", "Tables", "ledgers_in"]

BUFFER_BYTES = 2**20


class Ledger:
    """The records of one shard of work, opened for appending.

    Parameters
    ----------
    folder : Path
        Folder of the stage's ledgers, one file per shard.
    name : str
        Name of this shard.
    identity : str
        Digest of everything that decides the result.

    Raises
    ------
    LedgerError
        When another process holds this ledger.

    Attributes
    ----------
    work_s : float
        Seconds that the blocks in this file took, one after the other.
    """

    def __init__(self, folder: Path, name: str, identity: str) -> None:
        self.folder, self.identity = folder, identity
        self.path = folder / f"{name}.ledger"
        folder.mkdir(parents=True, exist_ok=True)
        self._held = acquire(self.path.with_suffix(".lock"))
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            self._start()
        except BaseException:
            self._held.close()
            raise

    def _start(self) -> None:
        mine = _scan(self.path, self.identity)
        self._done, self._end, self.work_s = mine.blocks, mine.end, mine.seconds
        os.ftruncate(self._file, self._end)
        os.lseek(self._file, self._end, os.SEEK_SET)
        if not self._end:
            self._append(header_line(self.identity))
        # Blocks about to be written make the records of another identity untrue, whichever shard they belong to.
        for path in ledgers_in(self.folder):
            if path != self.path:
                _empty_of_others(path, self.identity)

    def _append(self, data: bytes) -> None:
        """Write data whole, or not at all."""
        try:
            written = os.write(self._file, data)
            complaint = f"only {written} of {len(data)} bytes were written"
        except OSError as error:
            written, complaint = 0, str(error)
        if written != len(data):
            os.ftruncate(self._file, self._end)
            os.lseek(self._file, self._end, os.SEEK_SET)
            raise LedgerError(
                f"{self.path} cannot be written ({complaint}); is the disk full? What was finished before is kept. "
                "Make room and start again: it continues from there."
            )
        self._end += written

    def done(self) -> NDArray[np.int64]:
        """Give the blocks that any shard of this stage has finished, so that the number of shards may change.

        Returns
        -------
        ndarray of int64
            Numbers of blocks, sorted.

        Notes
        -----
        Reads the other shards' files; this one was read when it was opened.
        """
        others = (_scan(path, self.identity).blocks for path in ledgers_in(self.folder) if path != self.path)
        return np.unique(np.concatenate([np.asarray(self._done, np.int64), *others]))

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Note that a run begins: how many blocks it has to do, of how many, and what else `status` shows of it."""
        self._append(frame_bytes(RUN, json.dumps(dict(facts) | {"pid": os.getpid()}).encode(), time.time()))

    def started(self, blocks: Sequence[int]) -> None:
        """Note blocks that are handed out together: one frame for all of them."""
        self._append(frame_bytes(STARTED, np.asarray(blocks, "<i8").tobytes(), time.time()))

    def commit(self, block: int, tables: Tables | bytes, seconds: float = 0.0) -> None:
        """Append a record; the caller has the block's voxels on disk by now.

        Parameters
        ----------
        block : int
            Number of the block.
        tables : mapping of str to ndarray, or bytes
            What later stages need of it; bytes where a worker packed it.
        seconds : float
            How long it took.

        Raises
        ------
        LedgerError
            When the disk is full; the ledger is then as it was before.
        """
        payload = tables if isinstance(tables, bytes) else pack(tables)
        self._append(frame_bytes(DONE, payload, time.time(), block, seconds))
        self.work_s += seconds
        self._done.append(block)

    def failed(self, block: int, reason: str, seconds: float = 0.0) -> None:
        """Note that a block failed, and why; a later record makes it done."""
        self._append(frame_bytes(FAILED, reason.encode(errors="replace"), time.time(), block, seconds))

    def close(self) -> None:
        """Flush to the disk and let go.

        Raises
        ------
        LedgerError
            When the disk did not take all of it.
        """
        try:
            os.fsync(self._file)
        except OSError as error:
            raise LedgerError(f"{self.path} is not safely on disk ({error}); make room and start again.") from None
        finally:
            os.close(self._file)
            self._held.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Records:
    """The finished records of a stage, read one at a time.

    Parameters
    ----------
    folder : Path
        Folder of the stage's ledgers.
    identity : str
        Digest that the records must carry.
    blocks : int
        Number of blocks that must be there.

    Raises
    ------
    LedgerError
        When blocks are missing.

    Notes
    -----
    Keeps 32 bytes per block, and the ledgers open.
    """

    def __init__(self, folder: Path, identity: str, blocks: int) -> None:
        self._blocks = blocks
        paths = ledgers_in(folder)
        scans = [_scan(path, identity) for path in paths]
        numbers = np.concatenate([np.zeros(0, np.int64), *(np.asarray(scan.blocks, np.int64) for scan in scans)])
        # Of a block's records the last one counts: reversed, it is the first that `unique` meets.
        self._numbers, last = np.unique(numbers[::-1], return_index=True)
        chosen = len(numbers) - 1 - last
        self._file_of = np.repeat(np.arange(len(scans)), [len(scan.blocks) for scan in scans])[chosen]
        self._stops = _joined(scan.stops for scan in scans)[chosen]
        self._lengths = _joined(scan.lengths for scan in scans)[chosen]
        present = self._numbers[(self._numbers >= 0) & (self._numbers < blocks)]
        if len(present) < blocks:
            missing = np.setdiff1d(np.arange(blocks), present, assume_unique=True)
            raise LedgerError(
                f"{folder} has {blocks - len(missing)} of {blocks} blocks; missing are {missing[:10].tolist()}"
                f"{'…' if len(missing) > 10 else ''}. Run the stage again: it continues where it stopped."
            )
        self._files = [os.open(path, os.O_RDONLY) for path in paths]
        for file in self._files:
            weakref.finalize(self, os.close, file)

    @property
    def finished(self) -> list[int]:
        """Numbers of the blocks that are done."""
        return [int(block) for block in self._numbers]

    def __len__(self) -> int:
        return self._blocks

    def __getitem__(self, block: int) -> dict[str, NDArray[Any]]:
        if not 0 <= block < self._blocks:
            raise IndexError(block)
        return self.of(block)

    def of(self, block: int) -> dict[str, NDArray[Any]]:
        """Give one record, also of a stage that ran only some of its blocks."""
        place = int(np.searchsorted(self._numbers, block))
        if place == len(self._numbers) or self._numbers[place] != block:
            raise KeyError(block)
        length = int(self._lengths[place])
        return unpack(os.pread(self._files[self._file_of[place]], length, int(self._stops[place]) - length))

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        return (self[block] for block in range(self._blocks))


def ledgers_in(folder: Path) -> list[Path]:
    """Give the ledgers of a stage, one per shard of work."""
    return sorted(folder.glob("*.ledger"))


def _empty_of_others(path: Path, identity: str) -> None:
    """Empty a ledger of another identity; a process that holds it may be starting now, and is then about to do so."""
    deadline = time.monotonic() + PATIENCE_S
    while is_of_another(path, identity):
        try:
            with held(path.with_suffix(".lock"), patience_s=0.0):
                if is_of_another(path, identity):
                    path.write_bytes(b"")
        except LedgerError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


class _Scan(NamedTuple):
    """Done blocks in the order they were done, their payloads, the seconds of all, where the last whole frame ends."""

    blocks: array[int]
    stops: array[int]
    lengths: array[int]
    seconds: float
    end: int


def _scan(path: Path, identity: str) -> _Scan:
    blocks, stops, lengths, seconds = array("q"), array("q"), array("q"), 0.0
    with path.open("rb", buffering=BUFFER_BYTES) as file:
        header = file.readline()
        if header != header_line(identity):
            return _Scan(blocks, stops, lengths, 0.0, 0)
        end = len(header)
        for frame in read_frames(file):
            end = frame.stop
            if frame.kind == DONE:
                blocks.append(frame.block)
                stops.append(end)
                lengths.append(len(frame.payload))
                seconds += frame.seconds
    return _Scan(blocks, stops, lengths, seconds, end)


def _joined(parts: Iterator[array[int]]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(0, np.int64), *(np.asarray(part, np.int64) for part in parts)])
