"""Mutex watershed on a grid: attractive edges join in falling order, unless stronger repulsive ones keep apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import INNER_EXACT, JIT_EXACT
from spoco_blocks.kernels.union_find import find

# Strengths are sorted by counting: one level per value of a byte.
LEVELS = 256
# Pairs of clusters known to stay apart are remembered here; a pair that another one displaces is looked at again.
REMEMBERED = 1 << 16


def mutex_watershed(
    affinities: NDArray[np.uint8], offsets: NDArray[np.int64], attractive: int, mask: NDArray[np.bool_]
) -> NDArray[np.uint32]:
    """Partition the voxels of a mask by the affinities between them.

    Parameters
    ----------
    affinities : ndarray of uint8, shape (o, z, y, x)
        Probability that a voxel and the one at an offset from it belong to one object; 255 = surely.
    offsets : ndarray of int64, shape (o, 3)
        The offsets, z, y, x.
    attractive : int
        The first so many offsets join (the more, the higher the affinity), the others keep apart (the more, the lower).
    mask : ndarray of bool, shape (z, y, x)
        Voxels that take part.

    Returns
    -------
    ndarray of uint32, shape (z, y, x)
        0 outside the mask, else 1 to k in the order of the first voxels.

    Raises
    ------
    ValueError
        When the shapes do not go together.

    Notes
    -----
    Wolf et al., "The Mutex Watershed" (ECCV 2018; arXiv 1904.12654). Needs no threshold and no seeds: a gap in a border
    does not join two objects as long as longer edges across the border say otherwise. Edges of equal strength are
    taken in the order of offsets, then voxels, so that the result is determined.

    The published algorithm sorts all edges and keeps a set of exclusive pairs. Here repulsive edges are neither sorted
    nor kept: two clusters exclude each other exactly when a repulsive edge between them is stronger than the edge that
    would join them, and that is looked up where the edge is. A voxel is looked at only once one of its repulsive edges
    is strong enough, and of two clusters the one with fewer such voxels is searched. O(n r log n) with r repulsive
    offsets where clusters join; a pair that stays apart costs one search, which ends at the first edge found. Memory:
    4 bytes per attractive and 2 per repulsive offset and voxel, and 22 per voxel.
    """
    if affinities.shape != (len(offsets), *mask.shape):
        raise ValueError(
            f"expected affinities of shape {(len(offsets), *mask.shape)} for {len(offsets)} offsets and a mask of "
            f"shape {mask.shape}; got {affinities.shape}."
        )
    offsets = np.asarray(offsets, np.int64).reshape(-1, 3)
    inside, index = np.ascontiguousarray(mask), np.int32 if mask.size < 2**31 else np.int64
    steps = offsets @ np.array([mask.shape[1] * mask.shape[2], mask.shape[2], 1])
    edges, bounds = _sorted_edges(affinities[:attractive], offsets[:attractive], inside, np.empty(0, index))
    rows, weakest = _repulsion(affinities[attractive:], offsets[attractive:], steps[attractive:], inside)
    places, reached = _by_level(weakest, np.empty(0, index))
    parents = np.arange(mask.size, dtype=index)
    both = np.concatenate((steps[attractive:], -steps[attractive:]))
    _join(edges, bounds, steps[:attractive], rows, both, places, reached, parents)
    labels: NDArray[np.uint32] = _numbered(parents, inside.reshape(-1)).reshape(mask.shape)
    return labels


@njit(**INNER_EXACT)
def _bounds(extent: int, step: int) -> tuple[int, int]:
    """Give the range of places whose partner is in the array as well."""
    return max(0, -step), max(0, min(extent, extent - step))


@njit(**JIT_EXACT)
def _sorted_edges(
    affinities: NDArray[np.uint8], offsets: NDArray[np.int64], inside: NDArray[np.bool_], kind: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Sort the edges of a mask by falling affinity, then offset: their first voxels, and where each group starts."""
    nz, ny, nx = inside.shape
    groups = len(offsets)
    place = np.zeros(LEVELS * groups + 1, np.int64)
    edges = np.empty(0, kind.dtype)
    bounds = place
    for writing in (False, True):
        for o in range(groups):
            dz, dy, dx = offsets[o]
            left, right = _bounds(nx, dx)
            for z in range(*_bounds(nz, dz)):
                for y in range(*_bounds(ny, dy)):
                    values, here, there = affinities[o, z, y], inside[z, y], inside[z + dz, y + dy]
                    base = (z * ny + y) * nx
                    for x in range(left, right):
                        if here[x] and there[x + dx]:
                            group = (LEVELS - 1 - np.int64(values[x])) * groups + o
                            if writing:
                                edges[place[group]] = base + x
                                place[group] += 1
                            else:
                                place[group + 1] += 1
        if not writing:
            bounds = np.cumsum(place)
            place = bounds.copy()
            edges = np.empty(bounds[-1], kind.dtype)
    return edges, bounds


@njit(**JIT_EXACT)
def _repulsion(
    affinities: NDArray[np.uint8], offsets: NDArray[np.int64], steps: NDArray[np.int64], inside: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Give the affinities of each voxel's repulsive edges side by side, there and back, and the least of them."""
    nz, ny, nx = inside.shape
    width = len(offsets)
    rows = np.full((inside.size, 2 * width), LEVELS - 1, np.uint8)
    weakest = np.full(inside.size, LEVELS - 1, np.uint8)
    for z in range(nz):
        for y in range(ny):
            base = (z * ny + y) * nx
            for o in range(width):
                dz, dy, dx = offsets[o]
                if not (0 <= z + dz < nz and 0 <= y + dy < ny):
                    continue
                left, right = _bounds(nx, dx)
                values, here, there = affinities[o, z, y], inside[z, y], inside[z + dz, y + dy]
                for x in range(left, right):
                    if here[x] and there[x + dx]:
                        value, i, j = values[x], base + x, base + x + steps[o]
                        rows[i, o] = value
                        rows[j, width + o] = value
                        weakest[i] = min(weakest[i], value)
                        weakest[j] = min(weakest[j], value)
    return rows, weakest


@njit(**JIT_EXACT)
def _by_level(values: NDArray[np.uint8], kind: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Sort places by their value, leaving out those of the last level: the places, and where each level starts."""
    counts = np.zeros(LEVELS + 1, np.int64)
    for value in values:
        counts[np.int64(value) + 1] += 1
    bounds = np.cumsum(counts)
    place = bounds.copy()
    places = np.empty(bounds[LEVELS - 1], kind.dtype)
    for i in range(len(values)):
        value = values[i]
        if value < LEVELS - 1:
            places[place[value]] = i
            place[value] += 1
    return places, bounds


@njit(**JIT_EXACT)
def _join(
    edges: NDArray[Any],
    bounds: NDArray[np.int64],
    steps: NDArray[np.int64],
    rows: NDArray[np.uint8],
    partners: NDArray[np.int64],
    places: NDArray[Any],
    reached: NDArray[np.int64],
    parents: NDArray[Any],
) -> None:
    """Join the ends of the edges in turn; `places[reached[v] : reached[v + 1]]` are voxels repelled at level v."""
    # The repelled voxels of a cluster form a ring, of which the cluster's root knows one.
    count, ring, one = np.zeros_like(parents), np.empty_like(parents), np.empty_like(parents)
    apart = np.full(REMEMBERED, -1, np.int64)
    n = len(parents)
    for level in range(LEVELS):
        if level > 0:
            for i in places[reached[level - 1] : reached[level]]:
                root = find(parents, i)
                if count[root] == 0:
                    ring[i] = one[root] = i
                else:
                    ring[i], ring[one[root]] = ring[one[root]], i
                count[root] += 1
        for o in range(len(steps)):
            group = level * len(steps) + o
            for i in edges[bounds[group] : bounds[group + 1]]:
                a, b = find(parents, i), find(parents, i + steps[o])
                if a == b:
                    continue
                if count[a] < count[b]:
                    a, b = b, a
                if count[b] > 0:
                    key = a * n + b
                    slot = ((key * np.int64(-7046029254386353131)) >> np.int64(40)) & (REMEMBERED - 1)
                    if apart[slot] == key:
                        continue
                    if _excluded(a, one[b], level, rows, partners, ring, parents):
                        apart[slot] = key
                        continue
                    ring[one[a]], ring[one[b]] = ring[one[b]], ring[one[a]]
                    count[a] += count[b]
                parents[b] = a


@njit(**INNER_EXACT)
def _excluded(
    other: int,
    start: int,
    level: int,
    rows: NDArray[np.uint8],
    partners: NDArray[np.int64],
    ring: NDArray[Any],
    parents: NDArray[Any],
) -> bool:
    """Say whether a repulsive edge stronger than the level leads from a ring of voxels to another cluster."""
    i = start
    while True:
        row = rows[i]
        for k in range(len(row)):
            if row[k] < level and find(parents, i + partners[k]) == other:
                return True
        i = ring[i]
        if i == start:
            return False


@njit(**JIT_EXACT)
def _numbered(parents: NDArray[Any], inside: NDArray[np.bool_]) -> NDArray[np.uint32]:
    labels, number, count = np.zeros(len(parents), np.uint32), np.zeros(len(parents), np.uint32), 0
    for i in range(len(parents)):
        if inside[i]:
            root = find(parents, i)
            if number[root] == 0:
                count += 1
                number[root] = count
            labels[i] = number[root]
    return labels
