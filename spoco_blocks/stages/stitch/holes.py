"""Holes: background that one segment encloses, found on tables alone.

Where clustering recorded them, the gaps between a block's fragments stand behind these in its tables; a *piece* is
either. Pieces without a segment that touch make up one hole, wherever blocks cut it: gaps, and fragments that were too
small to stay. It is filled where it has few enough voxels, touches a single segment, reaches no border of the volume
and holds nothing outside of the mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.engine.ledger import Records
from spoco_blocks.kernels.faces import face_contacts
from spoco_blocks.kernels.gaps import enclosing
from spoco_blocks.kernels.islands import flatten, unite
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.stitch.tables import AXES, Fragments, following, reader


@dataclass(frozen=True)
class Pieces:
    """All pieces of a volume; entry 0 stands for what is none.

    Attributes
    ----------
    offsets : (blocks + 1,) int64
        Local piece i of block b is piece ``offsets[b] + i``.
    voxels : (n,) int64
        Voxels of each.
    """

    offsets: NDArray[np.int64]
    voxels: NDArray[np.int64]


@dataclass(frozen=True)
class Filled:
    """Segments of all pieces, and how many holes were filled with how many voxels."""

    lookup: NDArray[Any]
    holes: int = 0
    voxels: int = 0


def load_pieces(records: Records, fragments: Fragments, *, gaps: bool) -> Pieces:
    """Join the tables of all blocks; without gaps, pieces are fragments."""
    if not gaps:
        return Pieces(fragments.offsets, fragments.voxels)
    each = [record["voxels"] for record in records]
    offsets = np.cumsum([0, *map(len, each)])
    return Pieces(offsets, np.concatenate([np.zeros(1, np.int64), *each]))


def segments_of_pieces(ids: NDArray[Any], fragments: Fragments, pieces: Pieces) -> NDArray[Any]:
    """Give the segment of every piece, from those of the fragments: gaps have none."""
    found = np.zeros(len(pieces.voxels), ids.dtype)
    for block, (start, stop) in enumerate(zip(fragments.offsets[:-1], fragments.offsets[1:], strict=True)):
        place = pieces.offsets[block] + 1
        found[place : place + stop - start] = ids[start + 1 : stop + 1]
    return found


def fill_holes(records: Records, plan: Plan, pieces: Pieces, segments: NDArray[Any], most_voxels: int) -> Filled:
    """Give holes to the segments around them.

    Parameters
    ----------
    records : Records
        Of stage `cluster`, with gaps.
    plan : Plan
        How the volume was cut.
    pieces : Pieces
        Those of the whole volume.
    segments : (n,) unsigned int
        The segment of every piece, 0 = none.
    most_voxels : int
        Voxels of the largest holes that are filled.

    Notes
    -----
    Reads every record three times, one row of blocks at a time; about 60 bytes per piece.
    """
    n = len(segments)
    roots = np.arange(n, dtype="uint32" if n < 2**32 else "int64")
    closed, touched = np.ones(n, bool), np.zeros(n, bool)
    bounded = slice(1 if plan.planar else 0, 3)
    end = np.array(plan.shape)[bounded]
    for block, record in enumerate(records):
        start, stop = record["start"][:, bounded], record["stop"][:, bounded]
        border = (start == 0).any(axis=1) | (stop == end).any(axis=1)
        closed[pieces.offsets[block] + 1 : pieces.offsets[block + 1] + 1] = ~(border | record["unsought"])
    for pairs in _touching(records, plan, pieces.offsets):
        unite(roots, pairs, (segments[pairs] == 0).all(axis=1), touched)
    flatten(roots, 0, n)
    low, high = np.full(n, np.iinfo(segments.dtype).max, segments.dtype), np.zeros(n, segments.dtype)
    for pairs in _touching(records, plan, pieces.offsets):
        enclosing(pairs, segments, roots, low, high)
    loose = segments == 0
    sizes = np.bincount(roots[loose], pieces.voxels[loose], n)
    fits = (low == high) & (sizes <= most_voxels)
    fits[roots[~closed & loose]] = False
    fits[0] = False
    chosen = np.flatnonzero(loose & fits[roots])
    found = segments.copy()
    found[chosen] = low[roots[chosen]]
    return Filled(found, len(np.unique(roots[chosen])), int(pieces.voxels[chosen].sum()))


def _touching(records: Records, plan: Plan, offsets: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Give the pairs of pieces that touch, within a block or across one of its faces; no image touches the next."""
    grid, read = plan.cluster_grid, reader(records, plan.cluster_grid)
    for block in range(len(grid)):
        record = read(block)
        contacts = record["axis_contacts"]
        yield contacts[contacts[:, 2] >= int(plan.planar), :2].astype(np.int64) + offsets[block]
        for axis, other in following(grid, block, planar=plan.planar):
            pairs, _ = face_contacts(record[f"{AXES[axis]}1"], read(other)[f"{AXES[axis]}0"])
            yield pairs.astype(np.int64) + np.array([offsets[block], offsets[other]])
