"""The tables of all blocks as one: fragments, and which of them touch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.engine.ledger import Records, Tables
from spoco_blocks.grid import BlockGrid, triple
from spoco_blocks.kernels.faces import face_contacts
from spoco_blocks.stages.measured import BEYOND, places

AXES = "zyx"
SHARES = 1000

Contacts = tuple[NDArray[np.uint32], NDArray[np.int64]]
Compare = Callable[[tuple[int, int], tuple[Tables, Tables], int], Iterable[Contacts]]


@dataclass(frozen=True)
class Fragments:
    """All fragments of a volume; entry 0 stands for the background.

    Attributes
    ----------
    offsets : (blocks + 1,) int64
        Local fragment i of block b is fragment ``offsets[b] + i``.
    weights : (n,) int64
        Voxels behind each mean.
    sums : (n, c) float64
        Sums of embeddings in the frame of the volume.
    voxels : (n,) int64
        Voxels written.
    """

    offsets: NDArray[np.int64]
    weights: NDArray[np.int64]
    sums: NDArray[np.float64]
    voxels: NDArray[np.int64]


@dataclass(frozen=True)
class Edges:
    """Which fragments touch: (m, 2) pairs, (m,) how much (faces, shares, places), (m,) whether one block saw both."""

    pairs: NDArray[np.int64]
    contacts: NDArray[np.int64]
    same_block: NDArray[np.bool_]


class Column:
    """A column that grows block by block: in memory, or in a file that is then mapped.

    Parameters
    ----------
    path : Path or None
        The file, which is written anew; None = in memory.
    dtype : data type
        Of its entries.
    width : tuple of int
        Shape of an entry.
    """

    def __init__(self, path: Path | None, dtype: Any, width: tuple[int, ...] = ()) -> None:
        self._path, self._dtype, self._width = path, np.dtype(dtype), width
        self._parts: list[NDArray[Any]] = []
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Another file, not an emptied one, which may still be mapped.
            path.unlink(missing_ok=True)
        self._file = None if path is None else path.open("ab")

    def add(self, values: NDArray[Any]) -> None:
        """Append entries."""
        values = np.ascontiguousarray(values, self._dtype)
        if self._file is None:
            self._parts.append(values)
        else:
            values.tofile(self._file)

    def array(self) -> NDArray[Any]:
        """Give all entries; a file is mapped, not read. Nothing can be added from then on."""
        if self._file is None:
            return np.concatenate([np.zeros((0, *self._width), self._dtype), *self._parts])
        self._file.close()
        if not Path(self._file.name).stat().st_size:  # nothing cannot be mapped
            return np.zeros((0, *self._width), self._dtype)
        return np.memmap(self._file.name, self._dtype, "r").reshape(-1, *self._width)


def reader(records: Records, grid: BlockGrid) -> Callable[[int], Tables]:
    """Give what reads the record of a block and of those that follow, blocks in rising order.

    Notes
    -----
    A row of blocks is kept, so that a record is unpacked twice and not four times: for its own sake and for the block
    before it along z.
    """
    return lru_cache(maxsize=grid.counts[2] + 2)(records.__getitem__)


def load_fragments(records: Records, folder: Path | None = None) -> Fragments:
    """Join the fragment tables of all blocks; in files of a folder where one is given."""
    columns: dict[str, Column] = {}
    counts = [0]
    for record in records:
        for name in ("weights", "sums", "voxels"):
            values = record[name][: len(record["weights"])]
            if name not in columns:
                path = None if folder is None else folder / name
                columns[name] = Column(path, values.dtype, values.shape[1:])
                columns[name].add(np.zeros((1, *values.shape[1:])))
            columns[name].add(values)
        counts.append(len(record["weights"]))
    return Fragments(np.cumsum(counts), *(column.array() for column in columns.values()))


def load_edges(
    records: Records, grid: BlockGrid, offsets: NDArray[np.int64], *, planar: bool, folder: Path | None = None
) -> Edges:
    """Join the contacts within blocks, across their faces, and at places of the lattice that two blocks see.

    Notes
    -----
    A few voxels of an object that reach into a block need not face the rest of it, where the next block draws the
    border a little differently; but their block sees the rest in its halo. Images of a planar volume have no contact.
    """

    def compare(blocks: tuple[int, int], pair: tuple[Tables, Tables], axis: int) -> Iterator[Contacts]:
        yield _facing(*pair, axis)
        if "lattice" in pair[0]:
            yield _seen_by_both(grid, blocks, pair, planar=planar)

    return _load(records, grid, offsets, planar, compare, folder)


def load_overlaps(
    records: Records, grid: BlockGrid, offsets: NDArray[np.int64], *, planar: bool, folder: Path | None = None
) -> Edges:
    """Join the contacts within blocks and, across faces, what two blocks make of the same voxels (in 1/1000)."""
    return _load(records, grid, offsets, planar, lambda _, pair, axis: [_overlapping(*pair, axis)], folder)


def _load(
    records: Records,
    grid: BlockGrid,
    offsets: NDArray[np.int64],
    planar: bool,
    compare: Compare,
    folder: Path | None,
) -> Edges:
    read = reader(records, grid)
    kinds = {"pairs": (np.int64, (2,)), "contacts": (np.int64, ()), "same_block": (np.bool_, ())}
    columns = [Column(None if folder is None else folder / name, *kind) for name, kind in kinds.items()]

    def add(pairs: NDArray[Any], counts: NDArray[np.int64], same: bool) -> None:
        for column, values in zip(columns, (pairs, counts, np.full(len(counts), same)), strict=True):
            column.add(values)

    for block in range(len(grid)):
        record = read(block)
        add(record["pairs"].astype(np.int64) + offsets[block], record["contacts"], True)
        for axis, other in following(grid, block, planar=planar):
            for found, counts in compare((block, other), (record, read(other)), axis):
                add(found.astype(np.int64) + np.array([offsets[block], offsets[other]]), counts, False)
    return Edges(*(column.array() for column in columns))


def renamed_edges(
    names: NDArray[np.int64], pairs: NDArray[np.int64], contacts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give edges by other names of their nodes: pairs a < b of different names above 0, sorted, contacts summed up."""
    named = np.sort(names[pairs], axis=1)
    apart = (named[:, 0] != named[:, 1]) & (named[:, 0] > 0)
    # One number for each pair: sorting rows takes ten times as long.
    keys, place = np.unique(named[apart] @ np.array([len(names), 1]), return_inverse=True)
    summed = np.bincount(place, contacts[apart], len(keys)).astype(np.int64)
    return np.stack([keys // len(names), keys % len(names)], axis=1), summed


def following(grid: BlockGrid, block: int, *, planar: bool) -> Iterator[tuple[int, int]]:
    """Give the axes along which another block follows, and that block; none follows an image."""
    position = grid.position(block)
    for axis in range(1 if planar else 0, 3):
        after = triple(p + (a == axis) for a, p in enumerate(position))
        if after[axis] < grid.counts[axis]:
            yield axis, grid.index(after)


def fragments_at(record: Tables, face: str) -> NDArray[np.uint32]:
    """Give the fragments at a face of a block; gaps, which are numbered behind them, count as background."""
    plane: NDArray[np.uint32] = record[face]
    return np.where(plane <= len(record["weights"]), plane, np.uint32(0))


def _facing(record: Tables, following: Tables, axis: int) -> Contacts:
    """Count the voxel faces between the fragments of two blocks."""
    return face_contacts(fragments_at(record, f"{AXES[axis]}1"), fragments_at(following, f"{AXES[axis]}0"))


def _seen_by_both(grid: BlockGrid, blocks: tuple[int, int], pair: tuple[Tables, Tables], *, planar: bool) -> Contacts:
    """Count the places of the lattice, in both outer boxes, which two blocks give to each two fragments."""
    outer = [grid.block(block).outer for block in blocks]
    shared, views = places(outer[0].intersection(outer[1]), planar=planar), []
    for box, record in zip(outer, pair, strict=True):
        first = [place.start for place in places(box, planar=planar)]
        part = tuple(slice(p.start - f, p.stop - f) for p, f in zip(shared, first, strict=True))
        views.append(np.ascontiguousarray(record["lattice"][part]))
    return face_contacts(*views)


def _overlapping(record: Tables, following: Tables, axis: int) -> Contacts:
    """Compare the following block's first plane with what the block before it sees there, in its halo.

    Notes
    -----
    The share is that of the smaller of the two sections: an object may end at the border in one of the two views.
    """
    ours, theirs = record[BEYOND[axis]], fragments_at(following, f"{AXES[axis]}0")
    pairs, counts = face_contacts(ours, theirs)
    sections = [np.bincount(plane.reshape(-1)) for plane in (ours, theirs)]
    smaller = np.minimum(sections[0][pairs[:, 0]], sections[1][pairs[:, 1]])
    return pairs, counts * SHARES // np.maximum(smaller, 1)
