"""Growing labels into the unlabelled foreground."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import INNER, JIT, as_channels, widen

# Voxels whose embeddings are collected together.
PART = 512


class Growth:
    """Labels that grow into the unlabelled foreground.

    Parameters
    ----------
    padded : ndarray of uint32, shape (z + 2, y + 2, x + 2)
        0, or 1 to k, with a border of zeros. What is labelled already stays; the rest is filled in place.
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        The embedding of every voxel.
    sources : ndarray of int, shape (m,)
        Flat indices, without the border, of the foreground voxels that have no label, rising.
    means : ndarray of float, shape (k + 1, c)
        Mean embedding of each label; row 0 is not used.

    Notes
    -----
    Rounds are synchronous (they read the state before and write the state after), so that a voxel depends on nothing
    farther than their number away and the order of the voxels does not matter. Equal distances go to the smaller
    label. Seeded growing after Adams and Bischof (PAMI 16, 1994), by rounds instead of by a queue. O(m c) time per
    round for m unlabelled voxels beside two labels; memory c times the item size + 20 bytes for each unlabelled voxel.
    """

    def __init__(
        self,
        padded: NDArray[np.uint32],
        embeddings: NDArray[Any],
        sources: NDArray[np.integer[Any]],
        means: NDArray[np.floating[Any]],
    ) -> None:
        flat = as_channels(embeddings)
        # A border of zeros spares the loops below every test for the array's edge.
        self._padded = padded
        index = np.int32 if padded.size < 2**31 else np.int64
        self._sources: NDArray[Any] = sources.astype(index)
        self._vectors = np.empty((len(sources), len(flat)), flat.dtype)
        self._places = np.empty(len(sources), index)
        _collect(flat, self._sources, embeddings.shape[1:], self._vectors, self._places)
        self._means = np.ascontiguousarray(means, np.float32)
        self._waiting = np.arange(len(sources), dtype=index)

    @property
    def _state(self) -> Any:
        _, ny, nx = self._padded.shape
        offsets = np.array([-ny * nx, -nx, -1, 1, nx, ny * nx], np.int64)
        return self._padded.reshape(-1), self._places, self._vectors, self._means, offsets

    @property
    def padded(self) -> NDArray[np.uint32]:
        """The labels as they are now, with a border of zeros."""
        return self._padded

    @property
    def means(self) -> NDArray[np.float32]:
        """The mean of each label, shape (k + 1, c); row 0 is not used."""
        return self._means

    @property
    def unreached(self) -> tuple[NDArray[np.integer[Any]], NDArray[np.float32]]:
        """Flat indices of the voxels that have no label yet, rising, and their embeddings, shape (m, c)."""
        vectors = self._vectors[self._waiting]
        if vectors.dtype == np.uint16:
            vectors = vectors.view(np.float16)
        return self._sources[self._waiting], vectors.astype(np.float32, copy=False)

    def seed(self, labels: NDArray[np.uint32], means: NDArray[np.floating[Any]]) -> None:
        """Label voxels that have no label yet.

        Parameters
        ----------
        labels : ndarray of uint32, shape (m,)
            0, or 1 to n, for each of the voxels that `unreached` gives; they become k + 1 to k + n.
        means : ndarray of float, shape (n + 1, c)
            Their means; row 0 is not used.
        """
        chosen = labels > 0
        places = self._places[self._waiting[chosen]]
        self._padded.reshape(-1)[places] = labels[chosen] + np.uint32(len(self._means) - 1)
        self._means = np.concatenate([self._means, means[1:].astype(np.float32)])
        self._waiting = self._waiting[~chosen]

    def grow(self, rounds: int) -> None:
        """Let every unlabelled voxel with a labelled 6-neighbour take the label of the nearest mean, round by round."""
        self._waiting = self._waiting[: _grow(self._waiting, self._state, rounds)]


@njit(**INNER)
def _collect(
    flat: NDArray[Any],
    sources: NDArray[Any],
    shape: tuple[int, int, int],
    vectors: NDArray[Any],
    places: NDArray[Any],
) -> None:
    _, ny, nx = shape
    for j in range(len(sources)):
        # Unsigned, since Python's signs take longer than the division.
        source = np.uint64(sources[j])
        row = source // np.uint64(nx)
        z = row // np.uint64(ny)
        # One voxel of margin on each side: x + 1, y + 1, z + 1.
        places[j] = np.int64(source + np.uint64(2) * row + np.uint64(1)) + (nx + 2) * (2 * np.int64(z) + ny + 3)
    # In parts that stay in the cache: channel by channel, each part is read in one run.
    for start in range(0, len(sources), PART):
        for c in range(len(flat)):
            channel = flat[c]
            for j in range(start, min(start + PART, len(sources))):
                vectors[j, c] = channel[np.uint64(sources[j])]


@njit(**INNER)
def _squared(vectors: NDArray[Any], i: int, means: NDArray[np.float32], label: int) -> np.float32:
    total = np.float32(0)
    for c in range(means.shape[1]):
        difference = widen(vectors[i, c]) - means[label, c]
        total += difference * difference
    return total


@njit(**INNER)
def _choose(active: NDArray[Any], n: int, chosen: NDArray[np.uint32], state: Any) -> None:
    """Give each unlabelled voxel the label, of its neighbours', whose mean is nearest; the smallest of equals."""
    labels, places, vectors, means, offsets = state
    zero, one = np.uint32(0), np.uint32(1)
    for j in range(n):
        i = active[j]
        place = places[i]
        # Without branches: 0 - 1 is the largest uint32, so the smallest label is found among those above 0.
        low, high = np.uint32(zero - one), zero
        for offset in offsets:
            label = labels[place + offset]
            low = min(low, np.uint32(label - one))
            high = max(high, label)
        low = np.uint32(low + one)
        if low != high and high > 0:
            high = _nearer(vectors, i, means, low, high, labels, place, offsets)
        chosen[j] = high


@njit(**INNER)
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
    last = high
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
def _grow(waiting: NDArray[Any], state: Any, rounds: int) -> int:
    """Grow, and give how many voxels still wait: the first ones of `waiting`."""
    labels, places, _, _, _ = state
    chosen = np.empty(waiting.size, np.uint32)
    n: int = waiting.size
    for _ in range(rounds):
        _choose(waiting, n, chosen, state)
        left = 0
        for j in range(n):
            i = waiting[j]
            labels[places[i]] = chosen[j]
            waiting[left] = i
            left += chosen[j] == 0
        if left in (0, n):
            return left
        n = left
    return n
