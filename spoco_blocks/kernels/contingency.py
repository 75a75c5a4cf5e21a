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
from spoco_blocks.kernels.half import JIT_EXACT

Pairs = NDArray[np.uint64]
Counts = NDArray[np.int64]

_FIRST_SLOTS = 1 << 10


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
    """
    if truth.shape != segments.shape:
        raise VolumeError(
            f"truth has shape {truth.shape}, segments have {segments.shape}; read both from the same box."
        )
    pairs, counts = _count_runs(_flat(truth, "truth"), _flat(segments, "segments"))
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], counts[order]


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


@njit(**JIT_EXACT)
def _find(keys: Pairs, counts: Counts, truth: np.uint64, segment: np.uint64) -> np.int64:
    """Slot of a pair in an open hash table whose size is a power of two; a free slot where it is not in yet."""
    mask = counts.size - 1
    mixed = truth * np.uint64(0x9E3779B97F4A7C15) + segment * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed ^= mixed >> np.uint64(32)
    slot = np.int64(mixed & np.uint64(mask))
    while counts[slot] and (keys[slot, 0] != truth or keys[slot, 1] != segment):
        slot = np.int64((slot + 1) & mask)
    return slot


@njit(**JIT_EXACT)
def _doubled(keys: Pairs, counts: Counts) -> tuple[Pairs, Counts]:
    more_keys = np.empty((2 * counts.size, 2), np.uint64)
    more_counts = np.zeros(2 * counts.size, np.int64)
    for old in range(counts.size):
        if counts[old]:
            slot = _find(more_keys, more_counts, keys[old, 0], keys[old, 1])
            more_keys[slot] = keys[old]
            more_counts[slot] = counts[old]
    return more_keys, more_counts


@njit(**JIT_EXACT)
def _count_runs(truth: NDArray[Any], segments: NDArray[Any]) -> tuple[Pairs, Counts]:
    """Walk along runs of equal pairs, so that the hash table is asked once a run rather than once a voxel."""
    keys = np.empty((_FIRST_SLOTS, 2), np.uint64)
    counts = np.zeros(_FIRST_SLOTS, np.int64)
    filled = 0
    start = 0
    while start < truth.size:
        t, s = truth[start], segments[start]
        stop = start + 1
        while stop < truth.size and truth[stop] == t and segments[stop] == s:
            stop += 1
        slot = _find(keys, counts, np.uint64(t), np.uint64(s))
        if not counts[slot]:
            keys[slot, 0], keys[slot, 1] = t, s
            filled += 1
        counts[slot] += stop - start
        if 2 * filled > counts.size:
            keys, counts = _doubled(keys, counts)
        start = stop
    used = np.flatnonzero(counts)
    return keys[used], counts[used]
