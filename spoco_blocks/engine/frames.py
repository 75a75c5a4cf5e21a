"""Frames of a ledger: what happened to a block, when, how long it took, and what it gave.

A frame is a head of fixed size and a payload. The checksum covers both, so that a torn or damaged frame is never read.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

Tables = Mapping[str, NDArray[Any]]

RUN = b"RUNS"
STARTED = b"STRT"
DONE = b"DONE"
FAILED = b"FAIL"

_HEAD = struct.Struct("<4sIIqdf")  # kind, checksum of what follows, payload length, block, Unix time, seconds
_CHECKED_FROM = 8
_KINDS = frozenset((RUN, STARTED, DONE, FAILED))
_NO_BLOCK = -1
# To begin compressing takes longer than all else that is done for a small record.
_WORTH_COMPRESSING = 512


class Frame(NamedTuple):
    """One thing that happened.

    Attributes
    ----------
    kind : bytes
        `RUN`, `STARTED`, `DONE` or `FAILED`.
    block : int
        Number of the block; -1 where the frame is not of one block.
    time : float
        When, in Unix seconds.
    seconds : float
        How long the block took.
    payload : bytes
        What else there is to know.
    stop : int
        Where the payload ends in the file, in bytes.
    """

    kind: bytes
    block: int
    time: float
    seconds: float
    payload: bytes
    stop: int

    @property
    def facts(self) -> dict[str, Any]:
        """What a `RUN` frame says."""
        return dict(json.loads(self.payload))

    @property
    def blocks(self) -> list[int]:
        """The blocks of a `STARTED` frame, which were handed out together."""
        return [int(block) for block in np.frombuffer(self.payload, "<i8")]

    @property
    def reason(self) -> str:
        """What a `FAILED` frame says."""
        return self.payload.decode()


def frame_bytes(kind: bytes, payload: bytes, time: float, block: int = _NO_BLOCK, seconds: float = 0.0) -> bytes:
    """Give a frame as it is written."""
    head = _HEAD.pack(kind, 0, len(payload), block, time, seconds)
    checksum = zlib.crc32(payload, zlib.crc32(head[_CHECKED_FROM:]))
    return _HEAD.pack(kind, checksum, len(payload), block, time, seconds) + payload


def header_line(identity: str) -> bytes:
    """Give the line that a ledger of an identity starts with."""
    return json.dumps({"format": "spoco_blocks ledger 2", "identity": identity}).encode() + b"\n"


def is_of_another(path: Path, identity: str) -> bool:
    """Tell whether a ledger may have records of another identity: not before its first line is whole."""
    with path.open("rb") as file:
        header = file.readline()
    return header.endswith(b"\n") and header != header_line(identity)


def read_frames(file: BinaryIO) -> Iterator[Frame]:
    """Give every whole frame from the position of a file on; end at the first torn one.

    Notes
    -----
    Reads the file once, one frame at a time: about 2 µs a frame and no memory to speak of. The file is not mapped,
    since a mapped file that another process cuts short ends this one.
    """
    position = file.tell()
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        kind, checksum, length, block, time, seconds = _HEAD.unpack(head)
        payload = file.read(length) if kind in _KINDS else b""
        if len(payload) != length or zlib.crc32(payload, zlib.crc32(head[_CHECKED_FROM:])) != checksum:
            return
        position += _HEAD.size + length
        yield Frame(kind, block, time, seconds, payload, position)


def pack(tables: Tables) -> bytes:
    """Put small arrays into bytes: a JSON line of names, types and shapes, then the data; compressed if large."""
    arrays = {name: np.asarray(array, order="C") for name, array in tables.items()}
    header = json.dumps([[name, a.dtype.str, a.shape] for name, a in arrays.items()]).encode() + b"\n"
    data = header + b"".join(a.tobytes() for a in arrays.values())
    return data if len(data) < _WORTH_COMPRESSING else zlib.compress(data, 1)


def unpack(payload: bytes) -> dict[str, NDArray[Any]]:
    """Undo `pack`."""
    data = payload if payload.startswith(b"[") else zlib.decompress(payload)
    offset = data.index(b"\n") + 1
    tables = {}
    for name, dtype, shape in json.loads(data[:offset]):
        count = int(np.prod(shape, dtype=np.int64))
        tables[name] = np.frombuffer(data, np.dtype(dtype), count, offset).reshape(shape)
        offset += tables[name].nbytes
    return tables
