"""Which labelled regions touch, and at how many voxel faces."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import INNER_EXACT, JIT_EXACT

# Voxels whose pairs the table is given room for at once.
PART = 64


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
        slot, added = _count_face(np.int64(first[x]), np.int64(second[x]), slot, keys, counts)
        new += added
    return new


@njit(**INNER_EXACT)
def _count_face(a: int, b: int, slot: int, keys: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[int, int]:
    """Count one face, and give where its pair stands and whether it is new; `slot` is that of the face before."""
    key = min(a, b) << 32 | max(a, b)
    new = 0
    # Neighbouring faces mostly join the same pair.
    if keys[slot] != key:
        slot = _slot(keys, key)
        if keys[slot] == 0:
            keys[slot] = key
            new = 1
    counts[slot] += 1
    return slot, new


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
            slot, added = _count_face(own, other, slot, keys, counts)
            new += added
    return new
