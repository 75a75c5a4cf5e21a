"""Growing labels into the unlabelled foreground, and straightening the borders between them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import JIT, as_channels, widen

# Voxels whose embeddings are collected together.
PART = 4096


def grow_and_refine(
    labels: NDArray[np.uint32],
    embeddings: NDArray[Any],
    foreground: NDArray[np.bool_],
    means: NDArray[np.floating[Any]],
    rounds: int,
    sweeps: int,
) -> int:
    """Give unlabelled foreground voxels the label of the neighbour with the nearest mean embedding.

    Parameters
    ----------
    labels : ndarray of uint32, shape (z, y, x)
        0, or 1 to k. Changed in place where it is 0 in the foreground; labels that are there already stay.
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        The embedding of every voxel.
    foreground : ndarray of bool, shape (z, y, x)
        Where objects are.
    means : ndarray of float, shape (k + 1, c)
        Mean embedding of each label; row 0 is not used.
    rounds : int
        Rounds of growth: in each, every unlabelled voxel with a labelled 6-neighbour takes a label.
    sweeps : int
        Sweeps of refinement: in each, every grown voxel chooses again between its own and its neighbours' labels.

    Returns
    -------
    int
        Foreground voxels that no label reached.

    Notes
    -----
    Rounds and sweeps are synchronous (they read the state before and write the state after), so that a voxel depends
    on nothing farther than rounds + sweeps away and the order of the voxels does not matter. Equal distances go to the
    smaller label. Seeded growing after Adams and Bischof (PAMI 16, 1994), by rounds instead of by a queue. O(m c) time
    per round for m unlabelled voxels; memory c times the item size + 20 bytes for each of them, and 5 bytes per voxel.
    """
    todo = foreground & (labels == 0)
    count = int(np.count_nonzero(todo))
    if count == 0 or len(means) < 2:
        return count
    flat = as_channels(embeddings)
    vectors = np.empty((count, len(flat)), flat.dtype)
    places = np.empty(count, np.int64)
    _collect(flat, todo, vectors, places)
    # A border of zeros spares the loops below every test for the array's edge.
    padded = np.zeros(tuple(s + 2 for s in labels.shape), np.uint32)
    padded[1:-1, 1:-1, 1:-1] = labels
    _, ny, nx = padded.shape
    offsets = np.array([-ny * nx, -nx, -1, 1, nx, ny * nx], np.int64)
    state = (padded.reshape(-1), places, vectors, np.ascontiguousarray(means, np.float32), offsets)
    left = _grow(state, rounds)
    _refine(state, sweeps)
    labels[...] = padded[1:-1, 1:-1, 1:-1]
    return int(left)


@njit(**JIT)
def _collect(flat: NDArray[Any], todo: NDArray[np.bool_], vectors: NDArray[Any], places: NDArray[np.int64]) -> None:
    nz, ny, nx = todo.shape
    sources = np.empty(ny * nx, np.int64)
    done = 0
    for z in range(nz):
        n = 0
        for y in range(ny):
            for x in range(nx):
                if todo[z, y, x]:
                    sources[n] = (z * ny + y) * nx + x
                    places[done + n] = ((z + 1) * (ny + 2) + y + 1) * (nx + 2) + x + 1
                    n += 1
        # In parts that stay in the cache: channel by channel, each part is read in one run.
        for start in range(0, n, PART):
            stop = min(start + PART, n)
            for c in range(len(flat)):
                for j in range(start, stop):
                    vectors[done + j, c] = flat[c, sources[j]]
        done += n


@njit(**JIT)
def _squared(vectors: NDArray[Any], i: int, means: NDArray[np.float32], label: int) -> np.float32:
    total = np.float32(0)
    for c in range(means.shape[1]):
        difference = widen(vectors[i, c]) - means[label, c]
        total += difference * difference
    return total


@njit(**JIT)
def _choose(active: NDArray[np.int64], n: int, chosen: NDArray[np.uint32], state: Any) -> None:
    """Give each voxel the label, of its own and its neighbours', whose mean is nearest; the smallest of equals."""
    labels, places, vectors, means, offsets = state
    one = np.uint32(1)
    for j in range(n):
        i = active[j]
        place = places[i]
        # Without branches: 0 - 1 is the largest uint32, so the smallest label is found among those above 0.
        low, high = np.uint32(labels[place] - one), labels[place]
        for offset in offsets:
            label = labels[place + offset]
            low = min(low, np.uint32(label - one))
            high = max(high, label)
        low = np.uint32(low + one)
        if low != high and high > 0:
            high = _nearer(vectors, i, means, low, high, labels, place, offsets)
        chosen[j] = high


@njit(**JIT)
def _nearer(
    vectors: NDArray[Any],
    i: int,
    means: NDArray[np.float32],
    low: np.uint32,
    high: np.uint32,
    labels: NDArray[np.uint32],
    place: int,
    offsets: NDArray[np.int64],
) -> np.uint32:
    choice, best = low, _squared(vectors, i, means, low)
    other = _squared(vectors, i, means, high)
    if other < best:
        choice, best = high, other
    last = labels[place]
    # Written out: a member test is slow in numba.
    if last != 0 and last != low and last != high:  # noqa: PLR1714
        other = _squared(vectors, i, means, last)
        if other < best or (other == best and last < choice):
            choice, best = last, other
    for offset in offsets:
        label = labels[place + offset]
        if label == 0 or label == low or label == high or label == last:  # noqa: PLR1714, SIM109
            continue
        last = label
        other = _squared(vectors, i, means, label)
        if other < best or (other == best and label < choice):
            choice, best = label, other
    return choice


@njit(**JIT)
def _grow(state: Any, rounds: int) -> int:
    """Grow, and give how many voxels were not reached."""
    labels, places, _, _, _ = state
    waiting = np.arange(places.size)
    chosen = np.empty(places.size, np.uint32)
    n: int = places.size
    for _ in range(rounds):
        _choose(waiting, n, chosen, state)
        left = 0
        for j in range(n):
            waiting[left] = waiting[j]
            left += chosen[j] == 0
            labels[places[waiting[j]]] = chosen[j]
        if left in (0, n):
            return left
        n = left
    return n


@njit(**JIT)
def _refine(state: Any, sweeps: int) -> None:
    labels, places, _, _, offsets = state
    active = np.empty(places.size, np.int64)
    chosen = np.empty(places.size, np.uint32)
    # Only a voxel beside a change can change its mind: the sweep for which each voxel has to be looked at.
    due = np.zeros(labels.size, np.uint16)
    for sweep in range(sweeps):
        n = 0
        for i in range(places.size):
            active[n] = i
            n += (due[places[i]] == sweep) & (labels[places[i]] > 0)
        if n == 0:
            break
        _choose(active, n, chosen, state)
        for j in range(n):
            place = places[active[j]]
            if chosen[j] != labels[place]:
                labels[place] = chosen[j]
                for offset in offsets:
                    due[place + offset] = sweep + 1
