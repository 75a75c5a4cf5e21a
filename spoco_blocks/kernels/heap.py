"""A binary heap of edges by distance, the nearest first; equal ones by their two clusters."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import INNER_EXACT, JIT_EXACT

# Of each edge on a heap: the smaller and the larger cluster, and the edge.
ENTRY = 3


@njit(**INNER_EXACT)
def _before(distances: NDArray[np.float64], entries: NDArray[np.int64], i: int, j: int) -> bool:
    if distances[i] != distances[j]:
        return distances[i] < distances[j]  # type: ignore[no-any-return]
    if entries[i, 0] != entries[j, 0]:
        return entries[i, 0] < entries[j, 0]  # type: ignore[no-any-return]
    return entries[i, 1] < entries[j, 1]  # type: ignore[no-any-return]


@njit(**INNER_EXACT)
def swap(distances: NDArray[np.float64], entries: NDArray[np.int64], i: int, j: int) -> None:
    """Exchange two edges."""
    distances[i], distances[j] = distances[j], distances[i]
    for q in range(ENTRY):
        entries[i, q], entries[j, q] = entries[j, q], entries[i, q]


@njit(**INNER_EXACT)
def sift_up(distances: NDArray[np.float64], entries: NDArray[np.int64], i: int) -> None:
    """Let an edge rise to its place."""
    while i > 0:
        parent = (i - 1) // 2
        if not _before(distances, entries, i, parent):
            break
        swap(distances, entries, i, parent)
        i = parent


@njit(**INNER_EXACT)
def sift_down(distances: NDArray[np.float64], entries: NDArray[np.int64], n: int, i: int) -> None:
    """Let an edge sink to its place on a heap of n edges."""
    while 2 * i + 1 < n:
        child = 2 * i + 1
        if child + 1 < n and _before(distances, entries, child + 1, child):
            child += 1
        if not _before(distances, entries, child, i):
            break
        swap(distances, entries, i, child)
        i = child


@njit(**INNER_EXACT)
def _prune(distances: NDArray[np.float64], entries: NDArray[np.int64], n: int, queued: NDArray[np.float64]) -> int:
    """Drop outdated entries and give how many are left."""
    left = 0
    for i in range(n):
        if queued[entries[i, 2]] == distances[i]:
            distances[left] = distances[i]
            for q in range(ENTRY):
                entries[left, q] = entries[i, q]
            left += 1
    for i in range(left // 2 - 1, -1, -1):
        sift_down(distances, entries, left, i)
    return left


@njit(**JIT_EXACT)
def with_room_on_heap(
    distances: NDArray[np.float64], entries: NDArray[np.int64], n: int, queued: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
    """Make room on a full heap: by what is outdated, or by twice the memory."""
    n = _prune(distances, entries, n, queued)
    if 2 * n > distances.size:
        distances = np.concatenate((distances, np.empty_like(distances)))
        entries = np.concatenate((entries, np.empty_like(entries)))
    return distances, entries, n
