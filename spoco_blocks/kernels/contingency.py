"""Which truth object meets which segment, and in how many voxels: the one table that all scores come from.

Tables of blocks add up, so a volume of any size is scored block by block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.errors import VolumeError
from spoco_blocks.kernels.half import INNER_EXACT, JIT_EXACT

Pairs = NDArray[np.uint64]
Counts = NDArray[np.int64]

_FIRST_SLOTS = 1 << 10
# Voxels whose runs are found together: they and their pairs stay in the cache.
_STRIP = 1 << 12


def contingency(truth: NDArray[Any], segments: NDArray[Any]) -> tuple[Pairs, Counts]:
    """Count the voxels of every pair of truth object and segment, 0 included on both sides.

    Parameters
    ----------
    truth, segments : numpy.ndarray
        Integer labels of equal shape; uint32 and uint64 are read as they are, others are widened.

    Returns
    -------
    pairs : numpy.ndarray
        (m, 2) uint64: truth id, segment id; unique, sorted.
    counts : numpy.ndarray
        (m,) int64: voxels of each pair.

    Raises
    ------
    VolumeError
        When the shapes differ or the labels are not integers from 0 up.

    Notes
    -----
    O(n) time, one to two times that of copying both arrays (`python -m bench bandwidth`); 96 to 192 bytes per pair.
    """
    if truth.shape != segments.shape:
        raise VolumeError(
            f"truth has shape {truth.shape}, segments have {segments.shape}; read both from the same box."
        )
    found = _count_runs(_flat(truth, "truth"), _flat(segments, "segments"))
    found = found[np.lexsort((found[:, 1], found[:, 0]))]
    return np.ascontiguousarray(found[:, :2]), found[:, 2].astype(np.int64)


def merge_tables(tables: Sequence[tuple[Pairs, Counts]]) -> tuple[Pairs, Counts]:
    """Add up the tables of several blocks; sorted as `contingency` gives them."""
    pairs = np.concatenate([np.zeros((0, 2), np.uint64), *(table[0] for table in tables)])
    counts = np.concatenate([np.zeros(0, np.int64), *(table[1] for table in tables)])
    if not len(pairs):
        return pairs, counts
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    pairs, counts = pairs[order], counts[order]
    first = np.flatnonzero(np.concatenate([[True], (pairs[1:] != pairs[:-1]).any(axis=1)]))
    return pairs[first], np.add.reduceat(counts, first)


def _flat(labels: NDArray[Any], name: str) -> NDArray[Any]:
    if labels.dtype.kind not in "uib" or (labels.dtype.kind == "i" and labels.size and labels.min() < 0):
        raise VolumeError(f"{name} must be integers from 0 up; got {labels.dtype}.")
    if labels.dtype not in (np.uint32, np.uint64):
        labels = labels.astype(np.uint64)
    return np.ascontiguousarray(labels).ravel()


@njit(**INNER_EXACT)
def _find(table: Pairs, truth: np.uint64, segment: np.uint64) -> np.uint64:
    """Slot of a pair in an open hash table whose size is a power of two; a free slot where it is not in yet."""
    # Fibonacci hashing: the product's upper bits depend on all bits of both.
    mixed = (truth * np.uint64(0xC2B2AE3D27D4EB4F) + segment) * np.uint64(0x9E3779B97F4A7C15)
    mask = np.uint64(len(table) - 1)
    slot = (mixed >> np.uint64(32)) & mask
    while table[slot, 2] and (table[slot, 0] != truth or table[slot, 1] != segment):
        slot = (slot + np.uint64(1)) & mask
    return slot


@njit(**JIT_EXACT)
def _doubled(table: Pairs) -> Pairs:
    more = np.zeros((2 * len(table), 3), np.uint64)
    for old in range(len(table)):
        if table[old, 2]:
            more[_find(more, table[old, 0], table[old, 1])] = table[old]
    return more


@njit(**INNER_EXACT)
def _find_runs(
    truth: NDArray[Any], segments: NDArray[Any], ends: NDArray[np.bool_], starts: NDArray[np.int64]
) -> np.uint64:
    """Note where runs of equal pairs start, and after them the end; give how many there are."""
    truth_before, truth_now = truth[: truth.size - 1], truth[1:]
    segments_before, segments_now = segments[: segments.size - 1], segments[1:]
    # A loop of its own becomes vector code.
    for i in range(truth_now.size):
        ends[i] = (truth_before[i] != truth_now[i]) | (segments_before[i] != segments_now[i])
    starts[0] = 0
    found = np.uint64(1)
    for i in range(truth_now.size):
        # Written always, kept where a run ends: a branch would be mispredicted at nearly every end.
        starts[found] = i + 1
        found += np.uint64(ends[i])
    starts[found] = truth.size
    return found


@njit(**JIT_EXACT)
def _count_runs(truth: NDArray[Any], segments: NDArray[Any]) -> Pairs:
    """Give truth id, segment id and voxels of every pair; asks the hash table once a run of equal pairs.

    Runs of a strip are found before any of them is counted, so that each of both loops has one thing to wait for.
    Indices are unsigned: signed ones are looked at for being negative.
    """
    table = np.zeros((_FIRST_SLOTS, 3), np.uint64)
    starts, ends = np.empty(_STRIP + 1, np.int64), np.empty(_STRIP, np.bool_)
    filled = 0
    for first in range(0, truth.size, _STRIP):
        of_truth, of_segments = truth[first : first + _STRIP], segments[first : first + _STRIP]
        runs = np.int64(_find_runs(of_truth, of_segments, ends, starts))
        # Room for nothing but new pairs; at most a quarter full, few pairs meet one that is not theirs.
        while 4 * (filled + runs) > len(table):
            table = _doubled(table)
        for run in range(runs):
            start = np.uint64(starts[run])
            t, s = np.uint64(of_truth[start]), np.uint64(of_segments[start])
            slot = _find(table, t, s)
            if table[slot, 2] == 0:
                table[slot, 0], table[slot, 1] = t, s
                filled += 1
            table[slot, 2] += np.uint64(starts[run + 1]) - start
    return table[table[:, 2] > 0]
