"""HDBSCAN* on the graph of neighbouring voxels: density clusters that are connected in space."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import INNER_EXACT, JIT_EXACT, as_bits
from spoco_blocks.kernels.rows import widen_row
from spoco_blocks.kernels.union_find import find

# Distances below this count as this much: equal embeddings have no finite density.
LEAST = np.float32(1e-6)


def grid_hdbscan(
    embeddings: NDArray[Any],
    mask: NDArray[np.bool_],
    *,
    min_cluster_size: int,
    min_samples: int,
    epsilon: float,
    outer_distance: float,
) -> NDArray[np.uint32]:
    """Find the density clusters of the voxels in a mask, where 6-neighbours are each other's only neighbours.

    Parameters
    ----------
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        The embedding of every voxel.
    mask : ndarray of bool, shape (z, y, x)
        Voxels that take part.
    min_cluster_size : int
        A cluster has at least this many voxels.
    min_samples : int
        A voxel is as dense as its neighbour number `min_samples` is near (or the farthest, where it has fewer).
    epsilon : float
        Clusters that part below this distance are not parted.
    outer_distance : float
        Neighbours farther apart than this are not linked, and what is not linked parts at this distance.

    Returns
    -------
    ndarray of uint32, shape (z, y, x)
        0 outside the mask and for noise, else 1 to k in no particular order.

    Notes
    -----
    Campello, Moulavi and Sander (PAKDD 2013), excess of mass, the epsilon of Malzer and Baum (2020). The condensed tree
    is built while the spanning tree grows: a component below the minimal size is a list of voxels, which the cluster it
    joins takes over. O(n log n) time to sort the edges; memory about 75 bytes per voxel.
    """
    weights = np.full((3, *mask.shape), np.inf, np.float32)
    _distances(as_bits(embeddings), np.ascontiguousarray(mask), weights)
    steps = np.array([mask.shape[1] * mask.shape[2], mask.shape[2], 1])
    flat = weights.reshape(3, -1)
    _mutual(flat, steps, min_samples)
    edges = np.flatnonzero(flat.reshape(-1) <= outer_distance)
    edges = edges[np.argsort(flat.reshape(-1)[edges], kind="stable")]
    members, tree, values = _condense(edges, flat, steps, min_cluster_size)
    table = _select(tree, values, epsilon, outer_distance)
    labels: NDArray[np.uint32] = table[members].reshape(mask.shape)
    return labels


@njit(**JIT_EXACT)
def _distances(embeddings: NDArray[Any], mask: NDArray[np.bool_], weights: NDArray[np.float32]) -> None:
    """Give each voxel's distances to the next one along z, y, x; infinite where one of them is not in the mask."""
    channels, nz, ny, nx = embeddings.shape
    here, there = np.empty(nx, np.float32), np.empty(nx, np.float32)
    squared = np.empty((3, nx), np.float32)
    for z in range(nz):
        for y in range(ny):
            if not np.any(mask[z, y]):
                continue
            squared[:] = 0
            for c in range(channels):
                widen_row(embeddings[c, z, y], here)
                for x in range(nx - 1):
                    squared[2, x] += (here[x] - here[x + 1]) ** 2
                if y + 1 < ny:
                    widen_row(embeddings[c, z, y + 1], there)
                    for x in range(nx):
                        squared[1, x] += (here[x] - there[x]) ** 2
                if z + 1 < nz:
                    widen_row(embeddings[c, z + 1, y], there)
                    for x in range(nx):
                        squared[0, x] += (here[x] - there[x]) ** 2
            for x in range(nx):
                if mask[z, y, x]:
                    if z + 1 < nz and mask[z + 1, y, x]:
                        weights[0, z, y, x] = max(LEAST, np.sqrt(squared[0, x]))
                    if y + 1 < ny and mask[z, y + 1, x]:
                        weights[1, z, y, x] = max(LEAST, np.sqrt(squared[1, x]))
                    if x + 1 < nx and mask[z, y, x + 1]:
                        weights[2, z, y, x] = max(LEAST, np.sqrt(squared[2, x]))


@njit(**JIT_EXACT)
def _mutual(weights: NDArray[np.float32], steps: NDArray[np.int64], min_samples: int) -> None:
    """Turn distances into mutual reachability."""
    n = weights.shape[1]
    core = np.empty(n, np.float32)
    near = np.empty(6, np.float32)
    for i in range(n):
        count = 0
        for axis in range(3):
            before = i - steps[axis]
            # Where there is no neighbour, the weight is infinite, at the ends of rows as well.
            for value in (weights[axis, i], weights[axis, before] if before >= 0 else np.float32(np.inf)):
                if value < np.inf:
                    place = count
                    while place > 0 and near[place - 1] > value:
                        near[place] = near[place - 1]
                        place -= 1
                    near[place] = value
                    count += 1
        core[i] = near[min(min_samples, count) - 1] if count > 0 else np.float32(0)
    for axis in range(3):
        for i in range(n):
            if weights[axis, i] < np.inf:
                weights[axis, i] = max(weights[axis, i], core[i], core[i + steps[axis]])


@njit(**JIT_EXACT)
def _condense(
    edges: NDArray[np.int64], weights: NDArray[np.float32], steps: NDArray[np.int64], least: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """Join voxels along the edges in turn.

    Returns the cluster in which each voxel is first (0 = none); of each cluster its parent (0 = none); and of each
    its voxels, the sum of their densities, the stability of what it parts into, and the distance at which it does.
    """
    n = weights.shape[1]
    parents, ring = np.arange(n), np.arange(n)
    size, cluster = np.ones(n, np.int64), np.zeros(n, np.int32)
    members = np.zeros(n, np.int32)
    most = 2 * (n // least) + 2
    tree, values, count = np.zeros(most, np.int32), np.zeros((most, 4)), 0
    for edge in edges:
        axis, i = edge // n, edge % n
        a, b = find(parents, i), find(parents, i + steps[axis])
        if a == b:
            continue
        distance = np.float64(weights[axis, i])
        if size[a] < size[b]:
            a, b = b, a
        parents[b] = a
        first, second = cluster[a], cluster[b]
        if first > 0 and second > 0:
            count += 1
            for part, voxels in ((first, size[a]), (second, size[b])):
                tree[part] = count
                values[count, 2] += _stability(values[part], voxels / distance)
            values[count, 1] = (size[a] + size[b]) / distance
            values[count, 3] = distance
            cluster[a] = count
        elif first > 0:
            values[first, 1] += size[b] / distance
            _take(members, ring, b, first)
        else:
            ring[a], ring[b] = ring[b], ring[a]
            if size[a] + size[b] >= least:
                count += 1
                cluster[a] = count
                values[count, 1] = (size[a] + size[b]) / distance
                _take(members, ring, a, count)
        size[a] += size[b]
        values[cluster[a], 0] = size[a]
    return members, tree[: count + 1], values[: count + 1]


@njit(**INNER_EXACT)
def _take(members: NDArray[np.int32], ring: NDArray[np.int64], start: int, cluster: int) -> None:
    i = start
    while True:
        members[i] = cluster
        i = ring[i]
        if i == start:
            return


@njit(**INNER_EXACT)
def _stability(value: NDArray[np.float64], lost: float) -> float:
    """Give the stability of a cluster that was born with the summed density `lost`, or that of its parts."""
    stability: float = max(value[1] - lost, value[2])
    return stability


@njit(**JIT_EXACT)
def _select(
    tree: NDArray[np.int32], values: NDArray[np.float64], epsilon: float, outer_distance: float
) -> NDArray[np.uint32]:
    """Choose clusters that are worth more than their parts: the label of each, 0 = it is parted."""
    table, count = np.zeros(len(tree), np.uint32), 0
    # Parents have higher numbers than their parts.
    for cluster in range(len(tree) - 1, 0, -1):
        parent = tree[cluster]
        if parent > 0 and table[parent] > 0:
            table[cluster] = table[parent]
            continue
        voxels, density, parts, parting = values[cluster]
        birth = values[parent, 3] if parent > 0 else outer_distance
        if density - voxels / birth >= parts or parting < epsilon:
            count += 1
            table[cluster] = count
    return table
