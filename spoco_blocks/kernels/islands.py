"""Islands: sets of nodes that no edge between them could ever join, so that each is decided for itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import JIT_EXACT
from spoco_blocks.kernels.union_find import find, union


@njit(**JIT_EXACT)
def unite(parents: NDArray[Any], pairs: NDArray[Any], joining: NDArray[np.bool_], touched: NDArray[np.bool_]) -> int:
    """Join the islands at the ends of chosen edges.

    Parameters
    ----------
    parents : ndarray of int, shape (n,)
        The parent of every node, changed in place.
    pairs : ndarray of int, shape (m, 2)
        Nodes at the ends of the edges.
    joining : ndarray of bool, shape (m,)
        The edges that join.
    touched : ndarray of bool, shape (n,)
        Set at both ends of an edge that joined two islands.

    Returns
    -------
    int
        How many edges did.
    """
    united = 0
    for edge in range(len(pairs)):
        a, b = pairs[edge, 0], pairs[edge, 1]
        if joining[edge] and find(parents, a) != find(parents, b):
            union(parents, a, b)
            touched[a] = touched[b] = True
            united += 1
    return united


@njit(**JIT_EXACT)
def flatten(parents: NDArray[Any]) -> None:
    """Make every node's parent its root, in place: a root is the smallest of its set, so one pass is enough."""
    for node in range(parents.size):
        parents[node] = parents[parents[node]]


@njit(**JIT_EXACT)
def assign_batches(islands: NDArray[Any], touched: NDArray[np.bool_], limit: int) -> tuple[NDArray[np.int32], int]:
    """Put whole islands into batches.

    Parameters
    ----------
    islands : ndarray of int, shape (n,)
        The smallest node of the island of every node.
    touched : ndarray of bool, shape (n,)
        Islands with any such node are chosen.
    limit : int
        Nodes of a batch; an island with more of them is a batch of its own, or ends one.

    Returns
    -------
    batch : ndarray of int32, shape (n,)
        The batch of every node; -1 where its island is not chosen.
    number : int
        How many there are.
    """
    counts = np.zeros(islands.size, np.int32)
    batch = np.full(islands.size, -1, np.int32)
    for node in range(islands.size):
        counts[islands[node]] += 1
        if touched[node]:
            batch[islands[node]] = 0
    number, held = 0, 0
    for node in range(islands.size):
        if islands[node] == node and batch[node] == 0:
            if held > 0 and held + counts[node] > limit:
                number, held = number + 1, 0
            batch[node] = number
            held += counts[node]
    for node in range(islands.size):
        batch[node] = batch[islands[node]]
    return batch, number + (held > 0)


@njit(**JIT_EXACT)
def could_join(
    pairs: NDArray[Any],
    roots: NDArray[Any],
    weights: NDArray[np.int64],
    sums: NDArray[np.float64],
    merged: tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]],
    bound: float,
    small: int,
) -> NDArray[np.bool_]:
    """Tell which edges could ever have joined the clusters at their ends, or the parts these grew from.

    Parameters
    ----------
    pairs : ndarray of int, shape (m, 2)
        Nodes at the ends of the edges.
    roots : ndarray of int, shape (n,)
        The cluster of every node.
    weights, sums : ndarray, shape (n,) and (n, c)
        Voxels of every node, and sums of their embeddings.
    merged : tuple of ndarray, shapes (n,), (n, c), (n,)
        Voxels and sums of the clusters of several nodes, at their roots, and how far the mean of a node lies from
        that of the cluster at most; voxels are 0 elsewhere.
    bound : float
        Distance up to which means are joined.
    small : int
        Only where one of the two has fewer voxels.

    Returns
    -------
    ndarray of bool, shape (m,)

    Notes
    -----
    While a cluster grows, the mean of every part is a weighted mean of its nodes' means, so it stays in the smallest
    ball about the final mean that holds these. Where the balls of two clusters are farther apart than `bound`, no part
    of the one was ever near enough to a part of the other.
    """
    found = np.zeros(len(pairs), np.bool_)
    for edge in range(len(pairs)):
        a, b = pairs[edge, 0], pairs[edge, 1]
        if a == b or min(a, b) == 0 or min(weights[a], weights[b]) == 0 or min(weights[a], weights[b]) >= small:
            continue
        a, b = roots[a], roots[b]
        reach = bound + merged[2][a] + merged[2][b]
        squared = 0.0
        for c in range(sums.shape[1]):
            one = merged[1][a, c] / merged[0][a] if merged[0][a] > 0 else sums[a, c] / weights[a]
            other = merged[1][b, c] / merged[0][b] if merged[0][b] > 0 else sums[b, c] / weights[b]
            squared += (one - other) ** 2
        # What rounding takes away must not hide a meeting; a join too many changes nothing.
        found[edge] = squared <= (reach * (1 + 1e-9) + 1e-9) ** 2
    return found


@njit(**JIT_EXACT)
def balls(
    roots: NDArray[np.int64], weights: NDArray[np.int64], sums: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Sum up clusters, and give how far the means of their nodes lie from their own at most.

    Parameters
    ----------
    roots : ndarray of int64, shape (n,)
        The cluster of every node: its smallest node.
    weights, sums : ndarray, shape (n,) and (n, c)
        Voxels of every node, and sums of their embeddings.

    Returns
    -------
    voxels, totals, radius : ndarray, shapes (n,), (n, c), (n,)
        At the roots of clusters of several nodes; 0 elsewhere.
    """
    n, channels = sums.shape
    counts = np.zeros(n, np.int64)
    for node in range(n):
        counts[roots[node]] += 1
    voxels, totals, radius = np.zeros(n, np.int64), np.zeros((n, channels), np.float64), np.zeros(n, np.float64)
    for node in range(n):
        if counts[roots[node]] > 1:
            voxels[roots[node]] += weights[node]
            totals[roots[node]] += sums[node]
    for node in range(n):
        root = roots[node]
        if counts[root] > 1:
            squared = 0.0
            for c in range(channels):
                squared += (sums[node, c] / weights[node] - totals[root, c] / voxels[root]) ** 2
            radius[root] = max(radius[root], np.sqrt(squared))
    return voxels, totals, radius


@njit(**JIT_EXACT)
def number_roots(roots: NDArray[Any], voxels: NDArray[np.int64], least: int, ids: NDArray[Any]) -> int:
    """Number clusters 1..k in the order of their smallest nodes; node 0 and clusters that are too small get 0.

    Parameters
    ----------
    roots : ndarray of int, shape (n,)
        The smallest node of the cluster of every node.
    voxels : ndarray of int64, shape (n,)
        Voxels of every node.
    least : int
        Voxels that a cluster must have.
    ids : ndarray of unsigned int, shape (n,)
        Receives the numbers.

    Returns
    -------
    int
        How many clusters were numbered.
    """
    sizes = np.zeros(roots.size, np.int64)
    for node in range(roots.size):
        sizes[roots[node]] += voxels[node]
    number = 0
    for node in range(roots.size):
        root = roots[node]
        if root == node and node > 0 and sizes[node] >= least:
            number += 1
            ids[node] = number
        else:
            ids[node] = 0 if root == node else ids[root]
    return number
