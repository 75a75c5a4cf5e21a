"""Seams: how often objects end at the faces of blocks, beside how often they end at planes inside. No truth is needed.

An object that continues across a plane faces itself there. Where most of what it faces is another object, it ends, as
objects do: planes inside blocks say how many. What ends more often at the faces of blocks was cut by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.engine.ledger import Records
from spoco_blocks.grid import BlockGrid
from spoco_blocks.kernels.faces import face_contacts
from spoco_blocks.stages.measured import INSIDE
from spoco_blocks.stages.stitch.tables import AXES, following, reader

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


def load_planes(records: Records, grid: BlockGrid, offsets: NDArray[np.int64], *, planar: bool) -> Planes:
    """Join what blocks recorded of their faces and of the planes inside."""
    read = reader(records, grid)
    where: list[tuple[int, int, bool]] = []
    tables = [(np.zeros(0, np.int64), np.zeros((0, 2), np.int64), np.zeros(0, np.int64))]

    def add(block: int, axis: int, seam: bool, pairs: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        tables.append((np.full(len(counts), len(where)), pairs, counts))
        where.append((block, axis, seam))

    for block in range(len(grid)):
        record = read(block)
        for axis in range(1 if planar else 0, 3):
            inside = record[INSIDE[axis]]
            add(block, axis, False, inside[:, :2] + offsets[block], inside[:, 2])
        for axis, other in following(grid, block, planar=planar):
            pairs, counts = face_contacts(record[f"{AXES[axis]}1"], read(other)[f"{AXES[axis]}0"])
            add(block, axis, True, pairs.astype(np.int64) + np.array([offsets[block], offsets[other]]), counts)
    joined = [np.concatenate(column) for column in zip(*tables, strict=True)]
    return Planes(np.array(where, np.int64).reshape(-1, 3), *joined)


def count_cuts(planes: Planes, lookup: NDArray[Any]) -> SeamCounts:
    """Count which objects a decision lets end at which planes.

    Notes
    -----
    O(m log m) for m pairs of fragments that face each other.
    """
    segments = lookup[planes.pairs].astype(np.int64)
    both = (segments > 0).all(axis=1)
    segments, plane, counts = segments[both], planes.plane[both], planes.counts[both]
    own = np.where(segments[:, 0] == segments[:, 1], counts, 0)
    size, number = int(lookup.max(initial=0)) + 1, len(planes.where)
    seam = planes.where[plane, 2] == 1
    sections, cut = np.zeros(number, np.int64), np.zeros(number, np.int64)
    owns, facing = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for side in segments.T:
        order = np.lexsort((side, plane))
        first = np.flatnonzero(np.diff(plane[order], prepend=-1) | np.diff(side[order], prepend=-1))
        if len(first):
            faced, itself = (np.add.reduceat(values[order], first) for values in (counts, own))
            sections += np.bincount(plane[order][first], minlength=number)
            cut += np.bincount(plane[order][first], 2 * itself < faced, number).astype(np.int64)
        facing += np.bincount(side[seam], counts[seam], size).astype(np.int64)
        owns += np.bincount(side[seam], own[seam], size).astype(np.int64)
    return SeamCounts(sections, cut, owns, facing)


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
