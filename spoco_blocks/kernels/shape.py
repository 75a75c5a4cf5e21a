"""What is known of the shape of each labelled region: second moments, and faces by axis."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import INNER_EXACT, JIT_EXACT

# Products of positions whose sums are kept: zz, yy, xx, zy, zx, yx.
PRODUCTS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


def second_moments(labels: NDArray[np.uint32], count: int) -> NDArray[np.int64]:
    """Sum up the products of voxel positions of every region.

    Parameters
    ----------
    labels : ndarray of uint32, shape (z, y, x)
        0, or 1 to `count`.
    count : int
        The largest label, k.

    Returns
    -------
    ndarray of int64, shape (k + 1, 6)
        Sums of zz, yy, xx, zy, zx and yx, counted from the array's first voxel; 0 for label 0.

    Notes
    -----
    One pass by runs of equal label, O(n) time.
    """
    moments = np.zeros((count + 1, 6), np.int64)
    _moments(labels, moments)
    return moments


def open_faces(labels: NDArray[np.uint32], count: int) -> NDArray[np.int64]:
    """Count the faces at which each region meets something else, by axis.

    Parameters
    ----------
    labels : ndarray of uint32, shape (z, y, x)
        0, or 1 to `count`.
    count : int
        The largest label, k.

    Returns
    -------
    ndarray of int64, shape (k + 1, 3)
        Faces across z, y and x; label 0 has none. What lies outside the array is not known, so its border has none.

    Notes
    -----
    One pass, O(n) time.
    """
    faces = np.zeros((count + 1, 3), np.int64)
    _open_faces(labels, faces)
    return faces


def contacts_by_axis(labels: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Count the voxel faces at which two labels touch, by axis.

    Parameters
    ----------
    labels : ndarray of uint32, shape (z, y, x)
        Label 0 touches nothing.

    Returns
    -------
    ndarray of int64, shape (m, 4)
        The smaller label, the larger, the axis, the voxel faces between them; sorted by axis, then labels.

    Notes
    -----
    O(n) time, and O(r log r) for r runs of such faces along x; at most 48 bytes per run.
    """
    rows = []
    for axis in range(3):
        keys, counts = _runs_of_contacts(labels, axis)
        unique, place = np.unique(keys, return_inverse=True)
        counts = np.bincount(place, counts, len(unique)).astype(np.int64)
        rows.append(np.stack([unique >> 32, unique & 0xFFFFFFFF, np.full(len(unique), axis), counts], axis=1))
    return np.concatenate(rows)


@njit(**INNER_EXACT)
def _moments(labels: NDArray[np.uint32], moments: NDArray[np.int64]) -> None:
    nz, ny, nx = labels.shape
    for z in range(nz):
        for y in range(ny):
            row = labels[z, y]
            x = 0
            while x < nx:
                label = row[x]
                start = x
                while x < nx and row[x] == label:
                    x += 1
                if label == 0:
                    continue
                length = x - start
                along = (start + x - 1) * length // 2
                last, before = x - 1, start - 1
                squares = last * (last + 1) * (2 * last + 1) // 6
                squares -= before * (before + 1) * (2 * before + 1) // 6
                total = moments[label]
                total[0] += z * z * length
                total[1] += y * y * length
                total[2] += squares
                total[3] += z * y * length
                total[4] += z * along
                total[5] += y * along


@njit(**INNER_EXACT)
def _open_faces(labels: NDArray[np.uint32], faces: NDArray[np.int64]) -> None:
    nz, ny, nx = labels.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                label = labels[z, y, x]
                for axis in range(3):
                    if (z, y, x)[axis] == 0:
                        continue
                    other = labels[z - (axis == 0), y - (axis == 1), x - (axis == 2)]
                    if other != label:
                        if label > 0:
                            faces[label, axis] += 1
                        if other > 0:
                            faces[other, axis] += 1


@njit(**JIT_EXACT)
def _runs_of_contacts(labels: NDArray[np.uint32], axis: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give a key and a length for every run of faces between the same two labels along x."""
    nz, ny, nx = labels.shape
    dz, dy, dx = int(axis == 0), int(axis == 1), int(axis == 2)
    keys, lengths = np.empty(1024, np.int64), np.empty(1024, np.int64)
    found = 0
    for z in range(dz, nz):
        for y in range(dy, ny):
            if found + nx > keys.size:
                more = np.empty(keys.size + nx, np.int64)
                keys, lengths = np.concatenate((keys, more)), np.concatenate((lengths, more))
            before, row = labels[z - dz, y - dy], labels[z, y]
            last = np.int64(0)
            for x in range(dx, nx):
                a, b = np.int64(before[x - dx]), np.int64(row[x])
                if a == b or min(a, b) == 0:
                    last = np.int64(0)
                    continue
                key = min(a, b) << 32 | max(a, b)
                if key == last:
                    lengths[found - 1] += 1
                else:
                    keys[found], lengths[found], last = key, 1, key
                    found += 1
    return keys[:found], lengths[:found]
