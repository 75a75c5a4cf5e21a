"""The choice of a voxel at a border between its own label and those around it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.distance import UNKNOWN, squared_distance
from spoco_blocks.kernels.half import INNER, JIT, widen

# Voxels whose embeddings are collected together.
PART = 512


@njit(**INNER)
def keep_doubtful(
    padded: NDArray[np.uint32],
    places: NDArray[np.int64],
    means: NDArray[np.float32],
    evenness: np.float32,
    known: Any,
    marked: NDArray[np.bool_],
    kept: NDArray[np.int64],
) -> int:
    """Mark the voxels that are not known to keep their labels as long as their neighbours do.

    Parameters
    ----------
    padded, places, means, evenness, known
        As of `choose_labels`.
    marked : ndarray of bool, shape (the size of `padded`,)
        Changed in place.
    kept : ndarray of int64, longer than the places
        The voxels go here, in the same order.

    Returns
    -------
    int
        How many they are.
    """
    _, wy, wx = padded.shape
    labels, strides, count = padded.reshape(-1), (wy * wx, wx), 0
    for place in places:
        doubtful = not _is_sure(labels, place, strides, means, evenness, known)
        marked[place] = doubtful
        kept[count] = place
        count += doubtful
    return count


@njit(**JIT)
def choose_labels(
    flat: NDArray[Any],
    padded: NDArray[np.uint32],
    places: NDArray[np.int64],
    means: NDArray[np.float32],
    evenness: np.float32,
    known: Any,
) -> NDArray[np.uint32]:
    """Choose for each of some voxels between its label and those of its 6-neighbours; see `refine_borders`.

    Parameters
    ----------
    flat : ndarray of uint16 (float16 bits) or float32, shape (c, z y x)
        The embedding of every voxel, as `as_channels` gives it.
    padded : ndarray of uint32, shape (z + 2, y + 2, x + 2)
        0, or 1 to k, with a border of zeros.
    places : ndarray of int64, shape (m,)
        Flat indices of the voxels, with the border.
    means : ndarray of float32, shape (k + 1, c)
        Mean embedding of each label.
    evenness : float32
        What one neighbour more of a label is worth, as a part of the squared distance between two means.
    known : tuple of (ndarray of uint8, ndarray of float32, float32)
        The units of `DistanceBounds`, none where nothing is known, how far each mean has moved, and the unit.

    Returns
    -------
    ndarray of uint32, shape (m,)
        The labels.
    """
    _, wy, wx = padded.shape
    strides = (wy * wx, wx)
    labels = padded.reshape(-1)
    chosen = np.empty(places.size, np.uint32)
    sources, listed = np.empty(PART, np.uint64), np.empty(PART, np.int64)
    vectors = np.empty((PART, len(flat)), np.float32)
    for start in range(0, places.size, PART):
        size = _list_doubtful(labels, places, start, strides, means, evenness, known, chosen, listed)
        _read(flat, padded.shape, places, listed[:size], sources, vectors)
        for j in range(size):
            chosen[listed[j]] = _choose_one(vectors, j, labels, places[listed[j]], strides, means, evenness)
    return chosen


@njit(**INNER)
def _read(
    flat: NDArray[Any],
    shape: tuple[int, int, int],
    places: NDArray[np.int64],
    listed: NDArray[np.int64],
    sources: NDArray[np.uint64],
    vectors: NDArray[np.float32],
) -> None:
    """Give the embeddings of listed voxels."""
    _, wy, wx = shape
    for j in range(listed.size):
        row, x = _split(places[listed[j]], wx)
        z, y = _split(row, wy)
        sources[j] = ((z - 1) * (wy - 2) + y - 1) * (wx - 2) + x - 1
    # Channel by channel: each part is read in one run.
    for c in range(len(flat)):
        channel = flat[c]
        for j in range(listed.size):
            vectors[j, c] = widen(channel[sources[j]])


@njit(**INNER)
def _split(place: int, width: int) -> Any:
    """Give quotient and remainder of numbers that are not negative: quicker than with the signs of Python's."""
    quotient = np.uint64(place) // np.uint64(width)
    return np.int64(quotient), np.int64(place - np.int64(quotient) * width)


@njit(**INNER)
def _list_doubtful(
    labels: NDArray[np.uint32],
    places: NDArray[np.int64],
    start: int,
    strides: tuple[int, int],
    means: NDArray[np.float32],
    evenness: np.float32,
    known: Any,
    chosen: NDArray[np.uint32],
    listed: NDArray[np.int64],
) -> int:
    """Choose for a part of the voxels what they have, and list those that are not known to keep it."""
    count = 0
    for i in range(start, min(start + PART, places.size)):
        chosen[i] = labels[places[i]]
        listed[count] = i
        count += not _is_sure(labels, places[i], strides, means, evenness, known)
    return count


@njit(**INNER)
def _is_sure(
    labels: NDArray[np.uint32],
    place: int,
    strides: tuple[int, int],
    means: NDArray[np.float32],
    evenness: np.float32,
    known: Any,
) -> bool:
    """Tell whether a voxel is known to keep its label, as long as its neighbours do."""
    units, moved, unit = known
    if units.size == 0:
        return False
    own = labels[place]
    # Without branches, which would be mispredicted.
    low, high, more = _others(labels, place, strides, own)
    # A little more, for rounding.
    farthest = np.float32(1.001) * (units[place] * unit + moved[own])
    part = np.float32(0.5) * (np.float32(1) - evenness * np.float32(more))
    near = (part > 0) & (farthest * farthest <= part * part * squared_distance(means[own], means[high]))
    return bool(near & (low == high) & (units[place] != UNKNOWN))


@njit(**INNER)
def _others(labels: NDArray[np.uint32], place: int, strides: tuple[int, int], own: np.uint32) -> Any:
    """Give the smallest and the largest label beside a voxel that is neither 0 nor its own, and its lead over that."""
    offsets = (-strides[0], -strides[1], -1, 1, strides[1], strides[0])
    one, low, high = np.uint32(1), np.uint32(0xFFFFFFFF), np.uint32(0)
    for offset in offsets:
        # 0 - 1 is the largest uint32.
        other = np.uint32(labels[place + offset] * np.uint32(labels[place + offset] != own))
        low, high = min(low, np.uint32(other - one)), max(high, other)
    more = np.int64(0)
    for offset in offsets:
        more += np.int64(labels[place + offset] == high) - np.int64(labels[place + offset] == own)
    return np.uint32(low + one), high, more


@njit(**INNER)
def _choose_one(
    vectors: NDArray[np.float32],
    j: int,
    labels: NDArray[np.uint32],
    place: int,
    strides: tuple[int, int],
    means: NDArray[np.float32],
    evenness: np.float32,
) -> np.uint32:
    choice: np.uint32 = labels[place]
    low, high, more = _others(labels, place, strides, choice)
    if low == high:
        # 0 where what was beside it has become its own.
        better = high != 0 and _is_better(vectors[j], means[choice], means[high], evenness * np.float32(more))
        return high if better else choice
    offsets = (-strides[0], -strides[1], -1, 1, strides[1], strides[0])
    last = choice
    for offset in offsets:
        label = labels[place + offset]
        if label == 0 or label == choice or label == last:  # noqa: PLR1714, SIM109
            continue
        last = label
        more = np.int64(0)
        for other in offsets:
            more += np.int64(labels[place + other] == label) - np.int64(labels[place + other] == choice)
        if _is_better(vectors[j], means[choice], means[label], evenness * np.float32(more)):
            choice = label
    return choice


@njit(**INNER)
def _is_better(
    vector: NDArray[np.float32], own: NDArray[np.float32], other: NDArray[np.float32], even: np.float32
) -> bool:
    farther, gap = np.float32(0), np.float32(0)
    for c in range(vector.size):
        # |e - b|² - |e - a|² = (b - a) (a + b - 2 e)
        apart = other[c] - own[c]
        farther += apart * (other[c] + own[c] - np.float32(2) * vector[c])
        gap += apart * apart
    return bool(farther < even * gap)
