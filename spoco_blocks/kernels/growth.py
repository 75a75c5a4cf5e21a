"""Growing labels into the unlabelled foreground, and straightening the borders between them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.distance import squared_distance
from spoco_blocks.kernels.half import JIT, as_bits


def grow_and_refine(
    labels: NDArray[np.uint32],
    embeddings: NDArray[Any],
    foreground: NDArray[np.bool_],
    means: NDArray[np.floating[Any]],
    rounds: int,
    sweeps: int,
) -> None:
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

    Notes
    -----
    Rounds and sweeps are synchronous (they read the state before and write the state after), so that a voxel depends
    on nothing farther than rounds + sweeps away and the order of the voxels does not matter. Equal distances go to the
    smaller label. Seeded growing after Adams and Bischof (PAMI 16, 1994), by rounds instead of by a queue. O(m c) time
    per round for m unlabelled voxels; memory c times the item size + 20 bytes for each of them, and 5 bytes per voxel.
    """
    todo = foreground & (labels == 0)
    count = np.count_nonzero(todo)
    if count == 0 or len(means) < 2:
        return
    bits = as_bits(embeddings)
    vectors = np.empty((count, len(bits)), bits.dtype)
    # A border of zeros spares the loops below every test for the array's edge.
    padded = np.zeros(tuple(s + 2 for s in labels.shape), np.uint32)
    padded[1:-1, 1:-1, 1:-1] = labels
    places = np.empty(count, np.int64)
    _collect(bits, todo, vectors, places)
    _, ny, nx = padded.shape
    offsets = np.array([-ny * nx, -nx, -1, 1, nx, ny * nx], np.int64)
    narrow = np.ascontiguousarray(means, np.float32)
    flat = padded.reshape(-1)
    _grow(flat, places, vectors, narrow, offsets, rounds)
    _refine(flat, places, vectors, narrow, offsets, sweeps)
    labels[...] = padded[1:-1, 1:-1, 1:-1]


@njit(**JIT)
def _collect(
    embeddings: NDArray[Any], todo: NDArray[np.bool_], vectors: NDArray[Any], places: NDArray[np.int64]
) -> None:
    channels, nz, ny, nx = embeddings.shape
    columns = np.empty(nx, np.int64)
    done = 0
    for z in range(nz):
        for y in range(ny):
            inside = todo[z, y]
            n = 0
            for x in range(nx):
                if inside[x]:
                    columns[n] = x
                    places[done + n] = ((z + 1) * (ny + 2) + y + 1) * (nx + 2) + x + 1
                    n += 1
            rows = vectors[done : done + n]
            for c in range(channels if n else 0):
                values = embeddings[c, z, y]
                for i in range(n):
                    rows[i, c] = values[columns[i]]
            done += n


@njit(**JIT)
def _nearest_label(
    labels: NDArray[np.uint32],
    place: int,
    vector: NDArray[Any],
    means: NDArray[np.float32],
    offsets: NDArray[np.int64],
) -> Any:
    own = labels[place]
    chosen = own
    last = own
    best = np.float32(-1)
    for offset in offsets:
        label = labels[place + offset]
        # Written out: a member test is slow in numba.
        if label == 0 or label == own or label == last:  # noqa: PLR1714, SIM109
            continue
        last = label
        if best < 0:
            best = squared_distance(vector, means[own]) if own > 0 else np.float32(np.inf)
        squared = squared_distance(vector, means[label])
        if squared < best or (squared == best and label < chosen):
            best = squared
            chosen = label
    return chosen


@njit(**JIT)
def _grow(
    labels: NDArray[np.uint32],
    places: NDArray[np.int64],
    vectors: NDArray[Any],
    means: NDArray[np.float32],
    offsets: NDArray[np.int64],
    rounds: int,
) -> None:
    waiting = np.arange(places.size)
    chosen = np.empty(places.size, np.uint32)
    n = places.size
    for _ in range(rounds):
        for j in range(n):
            i = waiting[j]
            chosen[j] = _nearest_label(labels, places[i], vectors[i], means, offsets)
        left = 0
        for j in range(n):
            if chosen[j] > 0:
                labels[places[waiting[j]]] = chosen[j]
            else:
                waiting[left] = waiting[j]
                left += 1
        if left in (0, n):
            break
        n = left


@njit(**JIT)
def _refine(
    labels: NDArray[np.uint32],
    places: NDArray[np.int64],
    vectors: NDArray[Any],
    means: NDArray[np.float32],
    offsets: NDArray[np.int64],
    sweeps: int,
) -> None:
    chosen = np.empty(places.size, np.uint32)
    # Only a voxel beside a change can change its mind.
    stale = np.ones(labels.size, np.bool_)
    for _ in range(sweeps):
        for i in range(places.size):
            place = places[i]
            chosen[i] = labels[place]
            if chosen[i] > 0 and stale[place]:
                chosen[i] = _nearest_label(labels, place, vectors[i], means, offsets)
        stale[:] = False
        changes = 0
        for i in range(places.size):
            place = places[i]
            if chosen[i] != labels[place]:
                labels[place] = chosen[i]
                changes += 1
                for offset in offsets:
                    stale[place + offset] = True
        if changes == 0:
            break
