"""Seams: how often objects end at the faces of blocks, beside how often they end at planes inside. No truth is needed.

An object that continues across a plane faces itself there. Where most of what it faces is another object, it ends, as
objects do: planes inside blocks say how many. What ends more often at the faces of blocks was cut by them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.engine.ledger import Records
from spoco_blocks.grid import BlockGrid
from spoco_blocks.kernels.faces import face_contacts
from spoco_blocks.stages.measured import INSIDE
from spoco_blocks.stages.stitch import mapped
from spoco_blocks.stages.stitch.mapped import Workspace, largest
from spoco_blocks.stages.stitch.tables import AXES, Column, following, reader

NAMED = 10


@dataclass(frozen=True)
class Planes:
    """Which fragments face each other across planes: the faces between blocks, and one plane inside each block.

    Attributes
    ----------
    where : (p, 3) int64
        Block, axis, and whether the plane is a face between that block and the one that follows.
    plane : (m,) int64
        The plane of each pair.
    pairs : (m, 2) int64
        Fragments on either side; both may be the same one.
    counts : (m,) int64
        Voxel faces between them.
    """

    where: NDArray[np.int64]
    plane: NDArray[np.int64]
    pairs: NDArray[np.int64]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class SeamCounts:
    """What a decision makes of the planes.

    Attributes
    ----------
    sections, cut : (p,) int64
        Objects that meet each plane, once for either side, and how many of them face mostly other objects there.
    own, facing : (n + 1,) int64
        Voxel faces between blocks at which each segment faces itself, and at which it faces any segment.
    """

    sections: NDArray[np.int64]
    cut: NDArray[np.int64]
    own: NDArray[np.int64]
    facing: NDArray[np.int64]


def load_planes(
    records: Records, grid: BlockGrid, offsets: NDArray[np.int64], *, planar: bool, folder: Path | None = None
) -> Planes:
    """Join what blocks recorded of their faces and of the planes inside; in files of a folder where one is given."""
    read = reader(records, grid)
    widths: dict[str, tuple[int, ...]] = {"where": (3,), "plane": (), "pairs": (2,), "counts": ()}
    columns = [Column(None if folder is None else folder / name, np.int64, width) for name, width in widths.items()]
    number = count()

    def add(block: int, axis: int, seam: bool, pairs: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        plane = np.full(len(counts), next(number))
        for column, values in zip(columns, (np.array([[block, axis, seam]]), plane, pairs, counts), strict=True):
            column.add(values)

    for block in range(len(grid)):
        record = read(block)
        for axis in range(1 if planar else 0, 3):
            inside = record[INSIDE[axis]]
            add(block, axis, False, inside[:, :2] + offsets[block], inside[:, 2])
        for axis, other in following(grid, block, planar=planar):
            pairs, counts = face_contacts(record[f"{AXES[axis]}1"], read(other)[f"{AXES[axis]}0"])
            add(block, axis, True, pairs.astype(np.int64) + np.array([offsets[block], offsets[other]]), counts)
    return Planes(*(column.array() for column in columns))


def count_cuts(planes: Planes, lookup: NDArray[Any], folder: Path | None = None) -> SeamCounts:
    """Count which objects a decision lets end at which planes.

    Parameters
    ----------
    planes : Planes
        The planes.
    lookup : (n,) unsigned int
        The segment of every piece.
    folder : Path, optional
        Where what is known of segments lies, in files that are mapped; by default in memory.

    Notes
    -----
    O(m log m) for m pairs of fragments that face each other. Whole planes are looked at together, about `mapped.PART`
    pairs of them.
    """
    space = Workspace(folder, lookup, planes.where, planes.plane, planes.pairs, planes.counts)
    sizes = dict.fromkeys(("sections", "cut"), len(planes.where)) | dict.fromkeys(
        ("own", "facing"), largest(lookup) + 1
    )
    found = SeamCounts(*(space.zeros(name, np.int64, (size,)) for name, size in sizes.items()))
    for part in _whole_planes(planes.plane):
        _count_part(planes, lookup, part, found)
        space.let_go()
    return found


def _whole_planes(plane: NDArray[np.int64]) -> Iterator[slice]:
    """Cut pairs, sorted by plane, into parts that hold planes whole."""
    start = 0
    while start < len(plane):
        stop = min(start + mapped.PART, len(plane))
        if stop < len(plane) and plane[stop] > plane[start]:
            stop = int(np.searchsorted(plane, plane[stop]))
        elif stop < len(plane):
            stop = int(np.searchsorted(plane, plane[start], side="right"))
        yield slice(start, stop)
        start = stop


def _count_part(planes: Planes, lookup: NDArray[Any], part: slice, found: SeamCounts) -> None:
    """Add the pairs of some planes."""
    segments = lookup[planes.pairs[part]].astype(np.int64)
    both = (segments > 0).all(axis=1)
    segments, plane, counts = segments[both], planes.plane[part][both], planes.counts[part][both]
    if not len(plane):
        return
    own = np.where(segments[:, 0] == segments[:, 1], counts, 0)
    seam, first_plane, number = planes.where[plane, 2] == 1, int(plane[0]), int(plane[-1] - plane[0]) + 1
    here = slice(first_plane, first_plane + number)
    for side in segments.T:
        order = np.lexsort((side, plane))
        first = np.flatnonzero(np.diff(plane[order], prepend=-1) | np.diff(side[order], prepend=-1))
        faced, itself = (np.add.reduceat(values[order], first) for values in (counts, own))
        met = plane[order][first] - first_plane
        found.sections[here] += np.bincount(met, minlength=number)
        found.cut[here] += np.bincount(met, 2 * itself < faced, number).astype(np.int64)
        np.add.at(found.facing, side[seam], counts[seam])
        np.add.at(found.own, side[seam], own[seam])


def rates(planes: Planes, found: SeamCounts) -> tuple[float | None, float | None]:
    """Give the part of sections that are cut at seams and inside blocks; None where there are no sections."""
    seam = planes.where[:, 2] == 1
    return tuple(  # type: ignore[return-value]
        found.cut[which].sum() / total if (total := int(found.sections[which].sum())) else None
        for which in (seam, ~seam)
    )


def report_seams(planes: Planes, found: SeamCounts, grid: BlockGrid) -> dict[str, Any]:
    """Sum the planes up, and list the seams at which most objects are cut beyond what is usual inside blocks.

    Returns
    -------
    dict
        `cut_at_seams` and `cut_inside` (parts of sections; None = no section), `sections_at_seams`,
        `sections_inside`, and `worst`: seams with their box in voxels, axis, blocks, sections and cut sections.
    """
    at_seams, inside = rates(planes, found)
    seam = planes.where[:, 2] == 1
    excess = np.where(seam, found.cut - (inside or 0.0) * found.sections, 0.0)
    worst = [int(i) for i in np.argsort(-excess, kind="stable")[:NAMED] if excess[i] > 0]
    return {
        "cut_at_seams": at_seams,
        "cut_inside": inside,
        "sections_at_seams": int(found.sections[seam].sum()),
        "sections_inside": int(found.sections[~seam].sum()),
        "worst": [_seam(planes.where[i], int(found.sections[i]), int(found.cut[i]), grid) for i in worst],
    }


def _seam(where: NDArray[np.int64], sections: int, cut: int, grid: BlockGrid) -> dict[str, Any]:
    block, axis = int(where[0]), int(where[1])
    inner = grid.block(block).inner
    start, stop = list(inner.start), list(inner.stop)
    start[axis], stop[axis] = stop[axis] - 1, stop[axis] + 1
    other = next(after for a, after in following(grid, block, planar=False) if a == axis)
    return {
        "axis": AXES[axis],
        "start": start,
        "stop": stop,
        "blocks": [block, other],
        "sections": sections,
        "cut": cut,
    }
