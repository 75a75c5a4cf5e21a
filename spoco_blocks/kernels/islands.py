"""Islands: sets of nodes that no edge between them could ever join, so that each is decided for itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import INNER_EXACT, JIT_EXACT
from spoco_blocks.kernels.union_find import find, union


@njit(**INNER_EXACT)
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


@njit(**INNER_EXACT)
def flatten(parents: NDArray[Any], start: int, stop: int) -> None:
    """Make the parent of the nodes start..stop their root, in place, where those before have theirs.

    Notes
    -----
    A root is the smallest of its set, so that one rising pass is enough.
    """
    for node in range(start, stop):
        parents[node] = parents[parents[node]]


@njit(**INNER_EXACT)
def count_members(
    islands: NDArray[Any],
    touched: NDArray[np.bool_],
    counts: NDArray[Any],
    batch: NDArray[np.int32],
    start: int,
    stop: int,
) -> None:
    """Count the nodes of islands, and choose islands; the first of two rising passes that `assign_batches` ends.

    Parameters
    ----------
    islands : ndarray of int, shape (n,)
        The smallest node of the island of every node.
    touched : ndarray of bool, shape (n,)
        Islands with any such node are chosen; cleared in place.
    counts : ndarray of int, shape (n,)
        Receives the nodes of every island, at its smallest.
    batch : ndarray of int32, shape (n,)
        Receives 0 at the smallest node of a chosen island, -1 elsewhere.
    start, stop : int
        The nodes of this part.
    """
    for node in range(start, stop):
        # An island's smallest node comes first, so that it is set before anything is added to it.
        counts[node], batch[node] = 0, -1
        counts[islands[node]] += 1
        if touched[node]:
            batch[islands[node]] = 0
            touched[node] = False


@njit(**INNER_EXACT)
def assign_batches(
    islands: NDArray[Any],
    counts: NDArray[Any],
    batch: NDArray[np.int32],
    limit: int,
    filled: tuple[int, int],
    start: int,
    stop: int,
) -> tuple[int, int]:
    """Put whole islands into batches.

    Parameters
    ----------
    islands, counts, batch : ndarray, shape (n,)
        As `count_members` left them. `batch` receives the batch of every node; -1 where its island is not chosen.
    limit : int
        Nodes of a batch; an island with more of them is a batch of its own, or ends one.
    filled : tuple of int
        Batches that are full and nodes in the one that is not; (0, 0) for the first part.
    start, stop : int
        The nodes of this part.

    Returns
    -------
    tuple of int
        The same after this part.
    """
    number, held = filled
    for node in range(start, stop):
        if islands[node] != node:
            batch[node] = batch[islands[node]]
        elif batch[node] == 0:
            if held > 0 and held + counts[node] > limit:
                number, held = number + 1, 0
            batch[node] = number
            held += counts[node]
    return number, held


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


@njit(**INNER_EXACT)
def add_sizes(roots: NDArray[Any], voxels: NDArray[np.int64], sizes: NDArray[np.int64], start: int, stop: int) -> None:
    """Add the voxels of the nodes start..stop to their clusters: (n,) each, `sizes` in place, at the roots."""
    for node in range(start, stop):
        sizes[roots[node]] += voxels[node]


@njit(**INNER_EXACT)
def number_roots(
    roots: NDArray[Any], sizes: NDArray[np.int64], least: int, ids: NDArray[Any], number: int, start: int, stop: int
) -> int:
    """Number clusters 1..k in the order of their smallest nodes; node 0 and clusters that are too small get 0.

    Parameters
    ----------
    roots : ndarray of int, shape (n,)
        The smallest node of the cluster of every node.
    sizes : ndarray of int64, shape (n,)
        Voxels of every cluster, at its root.
    least : int
        Voxels that a cluster must have.
    ids : ndarray of unsigned int, shape (n,)
        Receives the numbers; they are of use where the result fits its data type.
    number : int
        How many clusters were numbered before this part.
    start, stop : int
        The nodes of this part.

    Returns
    -------
    int
        How many clusters are numbered after it.
    """
    for node in range(start, stop):
        root = roots[node]
        if root != node:
            ids[node] = ids[root]
        elif node > 0 and sizes[node] >= least:
            number += 1
            ids[node] = number
        else:
            ids[node] = 0
    return number
