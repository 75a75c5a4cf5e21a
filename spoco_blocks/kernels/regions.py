"""What is known of each labelled region: size, embedding, place, and which regions touch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import INNER, INNER_EXACT, JIT_EXACT, as_channels
from spoco_blocks.kernels.rows import widen_row

# Voxels that are taken together: a channel of them stays in the innermost cache.
STRIP_VOXELS = 2048
# Voxels whose pairs the table is given room for at once.
PART = 64

Statistics = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def region_statistics(labels: NDArray[np.uint32], embeddings: NDArray[Any], count: int) -> Statistics:
    """Sum up every labelled region.

    Parameters
    ----------
    labels : ndarray of uint32, shape (z, y, x)
        0, or 1 to `count`.
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        The embedding of every voxel.
    count : int
        The largest label, k.

    Returns
    -------
    voxels : ndarray of int64, shape (k + 1,)
        Voxels of each region; those of label 0 are not counted.
    sums : ndarray of float64, shape (k + 1, c)
        Sums of their embeddings.
    box_start, box_stop : ndarray of int64, shape (k + 1, 3)
        Half-open bounding boxes; 0, 0, 0 for a label without voxels.
    position_sums : ndarray of int64, shape (k + 1, 3)
        Sums of the voxels' z, y, x.

    Notes
    -----
    One pass by runs of equal label, O(n c) time. Sums are float64 from the first addition: for float16 input they are
    exact as long as k's voxels times the range of values needs fewer than 53 bits, so that the sums of a region's parts
    add up to those of the whole.
    """
    voxels = np.zeros(count + 1, np.int64)
    sums = np.zeros((count + 1, len(embeddings)), np.float64)
    box_start = np.full((count + 1, 3), np.iinfo(np.int64).max)
    box_stop = np.zeros((count + 1, 3), np.int64)
    position_sums = np.zeros((count + 1, 3), np.int64)
    _statistics(labels, as_channels(embeddings), voxels, sums, box_start, box_stop, position_sums)
    box_start[voxels == 0] = 0
    return voxels, sums, box_start, box_stop, position_sums


def contacts(labels: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Count the voxel faces at which two labels touch.

    Parameters
    ----------
    labels : ndarray of uint32, shape (z, y, x)
        Label 0 touches nothing.

    Returns
    -------
    pairs : ndarray of uint32, shape (m, 2)
        Every pair a < b of 6-neighbouring labels, sorted.
    counts : ndarray of int64, shape (m,)
        Voxel faces between them.

    Notes
    -----
    One pass with an open-addressing hash table: O(n) time, at most 64 bytes per pair and 192 per
    voxel of a row.
    """
    return _sorted_pairs(*_count_contacts(labels))


def contacts_at(
    padded: NDArray[np.uint32], places: NDArray[np.int64], listed: NDArray[np.bool_]
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Count the voxel faces at which two labels touch, of which one at least is listed.

    Parameters
    ----------
    padded : ndarray of uint32, shape (z + 2, y + 2, x + 2)
        0, or 1 to k, with a border of zeros.
    places : ndarray of int64, shape (m,)
        Flat indices, with the border, of all voxels of the listed labels.
    listed : ndarray of bool, shape (k + 1,)
        Which labels these are.

    Returns
    -------
    pairs, counts : ndarray of uint32, shape (n, 2), ndarray of int64, shape (n,)
        As `contacts` gives them.

    Notes
    -----
    O(m) time, at most 64 bytes per pair.
    """
    if listed[1:].all():
        return contacts(padded)
    return _sorted_pairs(*_count_contacts_at(padded.reshape(-1), places, padded.shape, listed))


def _sorted_pairs(keys: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    unsigned = keys.view(np.uint64)
    order = np.argsort(unsigned)
    unsigned = unsigned[order]
    pairs = np.stack([unsigned >> np.uint64(32), unsigned & np.uint64(0xFFFFFFFF)], axis=1).astype(np.uint32)
    return pairs, counts[order]


@njit(**JIT_EXACT)
def _statistics(
    labels: NDArray[np.uint32],
    flat: NDArray[Any],
    voxels: NDArray[np.int64],
    sums: NDArray[np.float64],
    box_start: NDArray[np.int64],
    box_stop: NDArray[np.int64],
    position_sums: NDArray[np.int64],
) -> None:
    nz, ny, nx = labels.shape
    rows = min(ny, max(1, STRIP_VOXELS // nx))
    line = np.empty(rows * nx, np.float32)
    runs = np.empty((rows * nx, 3), np.int64)
    for z in range(nz):
        for first in range(0, ny, rows):
            count, last = 0, min(first + rows, ny)
            for y in range(first, last):
                x = 0
                while x < nx:
                    label = np.int64(labels[z, y, x])
                    start = x
                    while x < nx and labels[z, y, x] == label:
                        x += 1
                    if label == 0:
                        continue
                    runs[count, 0] = label
                    runs[count, 1], runs[count, 2] = (y - first) * nx + start, (y - first) * nx + x
                    count += 1
                    length = x - start
                    voxels[label] += length
                    position_sums[label, 0] += z * length
                    position_sums[label, 1] += y * length
                    position_sums[label, 2] += (start + x - 1) * length // 2
                    _widen_box(box_start, box_stop, label, z, y, start, x)
            base, size = (z * ny + first) * nx, (last - first) * nx
            for c in range(len(flat) if count > 0 else 0):
                widen_row(flat[c, base : base + size], line[:size])
                _add_runs(line, runs[:count], sums[:, c])


@njit(**INNER)
def _add_runs(line: NDArray[np.float32], runs: NDArray[np.int64], sums: NDArray[np.float64]) -> None:
    for j in range(len(runs)):
        total, run = 0.0, line[runs[j, 1] : runs[j, 2]]
        for i in range(run.size):
            total += run[i]
        sums[runs[j, 0]] += total


@njit(**INNER_EXACT)
def _widen_box(
    box_start: NDArray[np.int64],
    box_stop: NDArray[np.int64],
    label: int,
    z: int,
    y: int,
    x_start: int,
    x_stop: int,
) -> None:
    box_start[label, 0] = min(box_start[label, 0], z)
    box_start[label, 1] = min(box_start[label, 1], y)
    box_start[label, 2] = min(box_start[label, 2], x_start)
    box_stop[label, 0] = max(box_stop[label, 0], z + 1)
    box_stop[label, 1] = max(box_stop[label, 1], y + 1)
    box_stop[label, 2] = max(box_stop[label, 2], x_stop)


@njit(**INNER_EXACT)
def _slot(keys: NDArray[np.int64], key: int) -> np.int64:
    # Fibonacci hashing: the product's upper bits depend on all bits of the key.
    mask = keys.size - 1
    i = (np.uint64(key) * np.uint64(11400714819323198485) >> np.uint64(32)) & np.uint64(mask)
    slot = np.int64(i)
    while keys[slot] not in (0, key):
        slot = (slot + 1) & mask
    return slot


@njit(**JIT_EXACT)
def _doubled(keys: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    wide_keys = np.zeros(2 * keys.size, np.int64)
    wide_counts = np.zeros(2 * keys.size, np.int64)
    for i in range(keys.size):
        if keys[i] != 0:
            slot = _slot(wide_keys, keys[i])
            wide_keys[slot] = keys[i]
            wide_counts[slot] = counts[i]
    return wide_keys, wide_counts


@njit(**INNER_EXACT)
def _count_row(
    first: NDArray[np.uint32],
    second: NDArray[np.uint32],
    keys: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> int:
    """Count the pairs of two rows, position by position, and give how many were new."""
    slot = 0
    new = 0
    for x in range(first.size):
        if first[x] == second[x] or min(first[x], second[x]) == 0:
            continue
        a = np.int64(first[x])
        b = np.int64(second[x])
        key = min(a, b) << 32 | max(a, b)
        # Neighbouring faces mostly join the same pair.
        if keys[slot] != key:
            slot = _slot(keys, key)
            if keys[slot] == 0:
                keys[slot] = key
                new += 1
        counts[slot] += 1
    return new


@njit(**JIT_EXACT)
def _count_contacts(labels: NDArray[np.uint32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    nz, ny, nx = labels.shape
    keys = np.zeros(1024, np.int64)
    counts = np.zeros(1024, np.int64)
    used = 0
    for z in range(nz):
        for y in range(ny):
            # Room for a row of nothing but new pairs, at most half full.
            while 2 * (used + 3 * nx) > keys.size:
                keys, counts = _doubled(keys, counts)
            row = labels[z, y]
            if z > 0:
                used += _count_row(labels[z - 1, y], row, keys, counts)
            if y > 0:
                used += _count_row(labels[z, y - 1], row, keys, counts)
            used += _count_row(row[: nx - 1], row[1:], keys, counts)
    taken = keys != 0
    return keys[taken], counts[taken]


@njit(**JIT_EXACT)
def _count_contacts_at(
    labels: NDArray[np.uint32], places: NDArray[np.int64], shape: tuple[int, ...], listed: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    keys = np.zeros(1024, np.int64)
    counts = np.zeros(1024, np.int64)
    used = 0
    for start in range(0, places.size, PART):
        part = places[start : start + PART]
        while 2 * (used + 6 * PART) > keys.size:
            keys, counts = _doubled(keys, counts)
        used += _count_at(labels, part, shape, listed, keys, counts)
    taken = keys != 0
    return keys[taken], counts[taken]


@njit(**INNER_EXACT)
def _count_at(
    labels: NDArray[np.uint32],
    places: NDArray[np.int64],
    shape: tuple[int, ...],
    listed: NDArray[np.bool_],
    keys: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> int:
    """Count the pairs at a few voxels, and give how many were new."""
    _, wy, wx = shape
    slot = 0
    new = 0
    for place in places:
        own = np.int64(labels[place])
        for offset in (-wy * wx, -wx, -1, 1, wx, wy * wx):
            other = np.int64(labels[place + offset])
            # A face between two voxels that are listed is seen from both.
            if other in (0, own) or (listed[other] and offset < 0):
                continue
            key = min(own, other) << 32 | max(own, other)
            if keys[slot] != key:
                slot = _slot(keys, key)
                if keys[slot] == 0:
                    keys[slot] = key
                    new += 1
            counts[slot] += 1
    return new
