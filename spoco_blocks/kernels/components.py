"""Connected components of equal values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.growable import with_room
from spoco_blocks.kernels.half import INNER_EXACT, JIT_EXACT
from spoco_blocks.kernels.union_find import union

# Voxels that are looked at together.
PART = 1024


def equal_components(values: NDArray[Any], min_voxels: int = 1) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Label the 6-connected components of equal non-zero value.

    Parameters
    ----------
    values : ndarray of int32 or uint32, shape (z, y, x)
        Voxels of value 0 belong to no component.
    min_voxels : int
        Components of fewer voxels become 0.

    Returns
    -------
    labels : ndarray of uint32, shape (z, y, x)
        0, or 1 to k in the raster order of the components' first voxels.
    sizes : ndarray of int64, shape (k + 1,)
        Voxels of each component; ``sizes[0]`` is 0.

    Notes
    -----
    Two raster passes over a union-find forest whose roots are first voxels (Rosenfeld and Pfaltz, J. ACM 13, 1966);
    a union is left out where the neighbours to the left have made it. O(n) time, 8 bytes per voxel.
    """
    forest = np.empty(values.size, np.int32 if values.size < 2**31 else np.int64)
    labels = np.zeros(values.shape, np.uint32)
    _link(np.ascontiguousarray(values), forest)
    sizes: NDArray[np.int64] = _number(forest, labels.reshape(-1), min_voxels)
    return labels, sizes


def count_voxels(labels: NDArray[np.uint32], count: int) -> NDArray[np.int64]:
    """Count the voxels of each label below `count`, in one pass and without a copy of the labels."""
    voxels = np.zeros(count, np.int64)
    _count(labels, voxels)
    return voxels


def labelled_from(labels: NDArray[np.uint32], first: int) -> NDArray[np.int64]:
    """List the voxels, by flat index, whose label is `first` or more: few, or there are quicker ways."""
    found: NDArray[np.int64] = _labelled_from(labels.reshape(-1), first)
    return found


@njit(**JIT_EXACT)
def _labelled_from(labels: NDArray[np.uint32], first: int) -> NDArray[np.int64]:
    found, count = np.empty(PART, np.int64), 0
    for start in range(0, labels.size, PART):
        part = labels[start : start + PART]
        # By the largest of a part, which vector code finds.
        if _largest(part) < first:
            continue
        found = with_room(found, count + PART)
        for i in range(part.size):
            found[count] = start + i
            count += part[i] >= first
    return found[:count].copy()


@njit(**INNER_EXACT)
def _largest(labels: NDArray[np.uint32]) -> np.uint32:
    largest = np.uint32(0)
    for label in labels:
        largest = max(largest, label)
    return largest


@njit(**INNER_EXACT)
def _count(labels: NDArray[np.uint32], voxels: NDArray[np.int64]) -> None:
    nz, ny, nx = labels.shape
    # By runs: counting voxel by voxel, each would wait for the one before it.
    current, length = np.uint32(0), 0
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                if labels[z, y, x] != current:
                    voxels[current] += length
                    current, length = labels[z, y, x], 0
                length += 1
    voxels[current] += length


@njit(**INNER_EXACT)
def _link(values: NDArray[Any], forest: NDArray[Any]) -> None:
    nz, ny, nx = values.shape
    for z in range(nz):
        for y in range(ny):
            base = (z * ny + y) * nx
            row = values[z, y]
            above = values[z, max(y - 1, 0)]
            before = values[max(z - 1, 0), y]
            left = above_left = before_left = row[0] - row[0]
            for x in range(nx):
                value = row[x]
                i = base + x
                if value == 0:
                    forest[i] = -1
                else:
                    same = left == value
                    forest[i] = forest[i - 1] if same else i
                    if y > 0 and above[x] == value and not (same and above_left == value):
                        union(forest, i, i - nx)
                    if z > 0 and before[x] == value and not (same and before_left == value):
                        union(forest, i, i - ny * nx)
                left = value
                above_left = above[x]
                before_left = before[x]


@njit(**JIT_EXACT)
def _number(forest: NDArray[Any], labels: NDArray[np.uint32], min_voxels: int) -> NDArray[np.int64]:
    # A root precedes its members, so its entry in `labels` can hold the count until the root itself is numbered.
    for i in range(forest.size):
        if forest[i] >= 0:
            forest[i] = forest[forest[i]]
            labels[forest[i]] += 1
    count = 0
    for i in range(forest.size):
        if forest[i] == i and labels[i] >= min_voxels:
            count += 1
    sizes = np.zeros(count + 1, np.int64)
    count = 0
    for i in range(forest.size):
        root = forest[i]
        if root == i:
            size = labels[i]
            labels[i] = 0
            if size >= min_voxels:
                count += 1
                sizes[count] = size
                labels[i] = count
        elif root >= 0:
            labels[i] = labels[root]
    return sizes
