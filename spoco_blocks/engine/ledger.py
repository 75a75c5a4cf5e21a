"""What is done: an append-only file of block records per shard of work.

A record is committed only after its block's voxels are on disk, so the record is the done marker. A file starts with
one JSON line that names its identity (the digest of settings, inputs, stage version and grid); records of another
identity are never reused. Records are framed by a length and a checksum: what a crash tore off is cut away at the next
start. One writer per file, held by a lock that dies with its process.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.engine.lock import acquire, held
from spoco_blocks.errors import LedgerError

Tables = Mapping[str, NDArray[Any]]

_FRAME = struct.Struct("<4sQII")  # mark, block, payload length, checksum of the payload
_MARK = b"BLCK"


def pack(tables: Tables) -> bytes:
    """Put small arrays into bytes: a JSON line of names, types and shapes, then the data, compressed."""
    arrays = {name: np.asarray(array, order="C") for name, array in tables.items()}
    header = json.dumps([[name, a.dtype.str, a.shape] for name, a in arrays.items()]).encode() + b"\n"
    return zlib.compress(header + b"".join(a.tobytes() for a in arrays.values()), 1)


def unpack(payload: bytes) -> dict[str, NDArray[Any]]:
    """Undo `pack`."""
    data = zlib.decompress(payload)
    offset = data.index(b"\n") + 1
    tables = {}
    for name, dtype, shape in json.loads(data[:offset]):
        count = int(np.prod(shape, dtype=np.int64))
        tables[name] = np.frombuffer(data, np.dtype(dtype), count, offset).reshape(shape)
        offset += tables[name].nbytes
    return tables


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
    """

    def __init__(self, folder: Path, name: str, identity: str) -> None:
        self.folder, self.identity = folder, identity
        self.path = folder / f"{name}.ledger"
        folder.mkdir(parents=True, exist_ok=True)
        self._held = acquire(self.path.with_suffix(".lock"))
        self._file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)
        self._start()

    def _start(self) -> None:
        # Blocks about to be written make the records of another identity untrue, whichever shard they belong to.
        for path in _ledgers(self.folder):
            if path != self.path and not _belongs(path, self.identity):
                with held(path.with_suffix(".lock")):
                    if not _belongs(path, self.identity):
                        path.write_bytes(b"")
        header = _header(self.identity)
        end = 0
        if os.fstat(self._file.fileno()).st_size and self._file.readline() == header:
            end = max((position for _, _, position in _frames(self.path, self.identity)), default=len(header))
        else:
            self._file.truncate(0)
            self._file.seek(0)
            self._file.write(header)
            end = len(header)
        self._file.truncate(end)
        self._file.seek(end)

    def done(self) -> set[int]:
        """Give the blocks that any shard of this stage has finished, so that the number of shards may change."""
        return {block for path in _ledgers(self.folder) for block, _, _ in _frames(path, self.identity)}

    def commit(self, block: int, tables: Tables) -> None:
        """Append a record; the caller has the block's voxels on disk by now."""
        payload = pack(tables)
        record = _FRAME.pack(_MARK, block, len(payload), zlib.crc32(payload)) + payload
        written = self._file.write(record)
        if written != len(record):
            raise LedgerError(f"{self.path}: only {written} of {len(record)} bytes were written; is the disk full?")

    def close(self) -> None:
        """Flush to the disk and let go."""
        os.fsync(self._file.fileno())
        self._file.close()
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
    """

    def __init__(self, folder: Path, identity: str, blocks: int) -> None:
        self._place = {
            block: (path, start, stop) for path in _ledgers(folder) for block, start, stop in _frames(path, identity)
        }
        missing = sorted(set(range(blocks)) - set(self._place))
        if missing:
            raise LedgerError(
                f"{folder} has {blocks - len(missing)} of {blocks} blocks; missing are {missing[:10]}"
                f"{'…' if missing[10:] else ''}. Run the stage again: it continues where it stopped."
            )
        self._blocks = blocks

    @property
    def finished(self) -> list[int]:
        """Numbers of the blocks that are done."""
        return sorted(self._place)

    def __len__(self) -> int:
        return self._blocks

    def __getitem__(self, block: int) -> dict[str, NDArray[Any]]:
        if not 0 <= block < self._blocks:
            raise IndexError(block)
        return self.of(block)

    def of(self, block: int) -> dict[str, NDArray[Any]]:
        """Give one record, also of a stage that ran only some of its blocks."""
        path, start, stop = self._place[block]
        with path.open("rb") as file:
            file.seek(start)
            return unpack(file.read(stop - start))

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        return (self[block] for block in range(self._blocks))


def _header(identity: str) -> bytes:
    return json.dumps({"format": "spoco_blocks ledger 1", "identity": identity}).encode() + b"\n"


def _belongs(path: Path, identity: str) -> bool:
    with path.open("rb") as file:
        return file.readline() == _header(identity)


def _ledgers(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.ledger"))


def _frames(path: Path, identity: str) -> Iterator[tuple[int, int, int]]:
    """Give (block, start and stop of the payload) of every whole record; end at the first torn one."""
    with path.open("rb") as file:
        header = _header(identity)
        if file.readline() != header:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            position, size = len(header), len(data)
            while position + _FRAME.size <= size:
                mark, block, length, checksum = _FRAME.unpack_from(data, position)
                start, stop = position + _FRAME.size, position + _FRAME.size + length
                if mark != _MARK or stop > size or zlib.crc32(data[start:stop]) != checksum:
                    return
                yield block, start, stop
                position = stop
