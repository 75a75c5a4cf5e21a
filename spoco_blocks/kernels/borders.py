"""Straightening the borders between labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.border_choice import choose_labels, keep_doubtful
from spoco_blocks.kernels.distance import UNKNOWN, DistanceBounds
from spoco_blocks.kernels.growable import with_room
from spoco_blocks.kernels.half import INNER_EXACT, JIT_EXACT, as_channels

# What each further neighbour of a label is worth, as a part of the squared distance of two means: noise moves a voxel
# half way between two objects by about this much.
EVENNESS = 0.03


def refine_borders(
    padded: NDArray[np.uint32],
    embeddings: NDArray[Any],
    means: NDArray[np.floating[Any]],
    sweeps: int,
    evenness: float = EVENNESS,
    changed: NDArray[np.int64] | None = None,
    bounds: DistanceBounds | None = None,
) -> None:
    """Let every voxel at a border choose again between its own label and those of its 6-neighbours, sweep by sweep.

    Parameters
    ----------
    padded : ndarray of uint32, shape (z + 2, y + 2, x + 2)
        0, or 1 to k, with a border of zeros; changed in place. 0 stays 0.
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        The embedding of every voxel.
    means : ndarray of float, shape (k + 1, c)
        Mean embedding of each label; row 0 is not used.
    sweeps : int
        How often at most.
    evenness : float
        What one neighbour more of a label is worth, as a part of the squared distance between the two means.
    changed : ndarray of int64, shape (m,), optional
        Flat indices, with the border, of what has changed since the borders were refined; the first sweep looks at
        these and at their neighbours, instead of at all borders.
    bounds : DistanceBounds, optional
        What is known of the voxels; those that change become `UNKNOWN`. The result is the same without.

    Notes
    -----
    A voxel changes from label a to b where |e - b|² - |e - a|² is less than evenness |a - b|² (n_b - n_a), n being
    neighbours of the label: iterated conditional modes of a Potts model (Besag, J. R. Stat. Soc. B 48, 1986). In a
    sweep first the voxels with even z + y + x choose, then the others, which are their only neighbours; so the order
    does not matter and nothing swings to and fro. O(n) time for the search for borders, O(c) for each voxel there; in
    later sweeps only beside what changed. Memory: 16 bytes per voxel at a border, and 1 per voxel.

    By the triangle inequality nothing has to be computed where |e - a| is at most (1 - evenness (n_b - n_a)) / 2 of
    |a - b|: with bounds, few embeddings are read.
    """
    flat = as_channels(embeddings)
    means = np.ascontiguousarray(means, np.float32)
    marked = np.zeros(padded.size, np.bool_)
    known = _known(bounds, len(means))
    if changed is None:
        here, there = _borders(padded, marked, means, np.float32(evenness), known)
    else:
        listed = _beside_others(padded.reshape(-1), changed, padded.shape, marked)
        odd = (np.sum(np.unravel_index(listed, padded.shape), axis=0) % 2).astype(np.bool_)
        # The border adds 3 to the sum of a voxel's indices.
        here, there = listed[odd], listed[~odd]
    for _ in range(2 * sweeps):
        if not len(here) and not len(there):
            return
        chosen = choose_labels(flat, padded, here, means, np.float32(evenness), known)
        here, there = _apply(padded.reshape(-1), here, chosen, padded.shape, marked, known[0], there), here[:0]


def _known(bounds: DistanceBounds | None, count: int) -> tuple[NDArray[np.uint8], NDArray[np.float32], np.float32]:
    """Give the units, none where nothing is known, how far the mean of each label has moved, and the unit."""
    if bounds is None:
        return np.empty(0, np.uint8), np.empty(0, np.float32), np.float32(0)
    moved = np.zeros(count, np.float32)
    moved[: len(bounds.moved)] = bounds.moved
    return bounds.units.reshape(-1), moved, np.float32(bounds.unit)


@njit(**JIT_EXACT)
def _borders(
    padded: NDArray[np.uint32],
    marked: NDArray[np.bool_],
    means: NDArray[np.float32],
    evenness: np.float32,
    known: Any,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List and mark the voxels that touch another label and may take it, those of even and those of odd z + y + x."""
    nz, ny, nx = padded.shape
    even, odd = np.empty(4096 + nx, np.int64), np.empty(4096 + nx, np.int64)
    beside, listed = np.empty(nx, np.bool_), np.empty(nx, np.int64)
    evens = odds = 0
    for z in range(1, nz - 1):
        for y in range(1, ny - 1):
            _beside(padded[z, y], padded[z - 1, y], padded[z + 1, y], padded[z, y - 1], padded[z, y + 1], beside)
            even, odd = with_room(even, evens + nx), with_room(odd, odds + nx)
            # The border adds 3 to the sum of a voxel's indices.
            first = (z + y) % 2
            count = _every_second(beside, 1 + first, (z * ny + y) * nx, listed)
            evens += keep_doubtful(padded, listed[:count], means, evenness, known, marked, even[evens:])
            count = _every_second(beside, 2 - first, (z * ny + y) * nx, listed)
            odds += keep_doubtful(padded, listed[:count], means, evenness, known, marked, odd[odds:])
    return even[:evens].copy(), odd[:odds].copy()


@njit(**INNER_EXACT)
def _every_second(beside: NDArray[np.bool_], first: int, base: int, listed: NDArray[np.int64]) -> int:
    count = 0
    for x in range(first, beside.size - 1, 2):
        listed[count] = base + x
        count += beside[x]
    return count


@njit(**INNER_EXACT)
def _beside(
    row: NDArray[np.uint32],
    before: NDArray[np.uint32],
    after: NDArray[np.uint32],
    above: NDArray[np.uint32],
    below: NDArray[np.uint32],
    beside: NDArray[np.bool_],
) -> None:
    # Without branches and by slices, so that it becomes vector code.
    n = row.size - 2
    here, left, right = row[1 : n + 1], row[:n], row[2:]
    before, after, above, below, out = before[1:], after[1:], above[1:], below[1:], beside[1:]
    for i in range(n):
        own = here[i]
        other = ((left[i] != own) & (left[i] != 0)) | ((right[i] != own) & (right[i] != 0))
        other |= ((above[i] != own) & (above[i] != 0)) | ((below[i] != own) & (below[i] != 0))
        other |= ((before[i] != own) & (before[i] != 0)) | ((after[i] != own) & (after[i] != 0))
        out[i] = other & (own != 0)
    beside[0] = beside[n + 1] = False


@njit(**JIT_EXACT)
def _apply(
    labels: NDArray[np.uint32],
    places: NDArray[np.int64],
    chosen: NDArray[np.uint32],
    shape: tuple[int, int, int],
    marked: NDArray[np.bool_],
    units: NDArray[np.uint8],
    waiting: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Write the choices, and list the neighbours of what changed after those that wait; what is listed is marked."""
    moved = np.empty(places.size, np.int64)
    count = 0
    for j in range(places.size):
        marked[places[j]] = False
        if labels[places[j]] != chosen[j]:
            labels[places[j]] = chosen[j]
            if units.size > 0:
                units[places[j]] = UNKNOWN
            moved[count] = places[j]
            count += 1
    # The neighbours of even voxels are odd: what changed is not listed itself.
    for j in range(count):
        marked[moved[j]] = True
    listed = _beside_others(labels, moved[:count], shape, marked)
    for j in range(count):
        marked[moved[j]] = False
    return np.concatenate((waiting, listed))


@njit(**JIT_EXACT)
def _beside_others(
    labels: NDArray[np.uint32], moved: NDArray[np.int64], shape: tuple[int, int, int], marked: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """List and mark those of some voxels and their neighbours that touch another label and are not marked yet."""
    _, wy, wx = shape
    offsets = (-wy * wx, -wx, -1, 1, wx, wy * wx)
    listed = np.empty(7 * moved.size, np.int64)
    count = 0
    for j in range(moved.size):
        for step in (0, *offsets):
            place = moved[j] + step
            if labels[place] == 0 or marked[place]:
                continue
            alone = True
            for other in offsets:
                alone &= (labels[place + other] == labels[place]) | (labels[place + other] == 0)
            if not alone:
                marked[place] = True
                listed[count] = place
                count += 1
    return listed[:count].copy()
