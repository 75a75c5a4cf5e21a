"""Joining fragments into segments: greedy centroid linkage over the graph of contacts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import INNER_EXACT, JIT_EXACT
from spoco_blocks.kernels.heap import ENTRY, sift_down, sift_up, swap, with_room_on_heap
from spoco_blocks.kernels.union_find import find


def agglomerate(
    pairs: NDArray[np.integer[Any]],
    contacts: NDArray[np.integer[Any]],
    distinct: NDArray[np.bool_],
    voxels: NDArray[np.integer[Any]],
    sums: NDArray[np.float64],
    *,
    merge_distance: float,
    small_voxels: int,
    small_distance: float,
    min_contacts: int = 1,
) -> NDArray[np.int64]:
    """Fuse neighbouring nodes of similar mean embedding.

    Parameters
    ----------
    pairs : ndarray of int64, shape (m, 2)
        Nodes that touch, or that must stay apart. Pairs may be repeated, in either order.
    contacts : ndarray of int64, shape (m,)
        Voxel faces between them, 0 where a pair only must stay apart; repeated pairs are summed.
    distinct : ndarray of bool, shape (m,)
        Pairs that must stay apart (cannot-link); repeated pairs are or-ed.
    voxels : ndarray of int64, shape (n,)
        Voxels of each node. Nodes without voxels are never fused; node 0 is the background.
    sums : ndarray of float64, shape (n, c)
        Sums of their voxels' embeddings.
    merge_distance : float
        The nearest two neighbours are fused as long as their means are no farther apart than this.
    small_voxels : int
        Clusters with fewer voxels than this then join their most similar neighbour.
    small_distance : float
        How far its mean may be.
    min_contacts : int
        Clusters with fewer voxel faces between them count as not touching.

    Returns
    -------
    ndarray of int64, shape (n,)
        The smallest node of the cluster that each node ended in.

    Notes
    -----
    Edges between two clusters are folded into one whenever a cluster grows: contacts add up, and one cannot-link edge
    keeps the two apart for good, in both phases. Equal distances go by smaller, then larger root, so the result does
    not depend on the order of the pairs. Centroid linkage (Sokal and Michener, 1958) restricted to a region adjacency
    graph, with a binary heap of which outdated entries are dropped when they surface.

    A fusion costs the degree of the fused cluster times c: O(m c log m) in all for degrees that stay bounded. Memory:
    about 50 bytes per pair, 40 per heap entry (at most four times the pairs) and 8 c + 60 per node.
    """
    edges, faces, apart = _canonical(pairs, contacts, distinct, voxels)
    n = len(voxels)
    roots = np.arange(n)
    if len(edges):
        size = np.array(voxels, np.int64)
        total = np.array(sums, np.float64)
        heads, following = _adjacency(edges, n)
        graph = (edges, faces, apart, np.ones(len(edges), np.bool_), heads, following)
        everything = int(np.iinfo(np.int64).max)
        for distance, small in ((merge_distance, everything), (small_distance, int(small_voxels))):
            _link(graph, roots, size, total, (float(distance) ** 2, small, int(min_contacts)))
        _flatten(roots)
    return roots


def _canonical(
    pairs: NDArray[np.integer[Any]],
    contacts: NDArray[np.integer[Any]],
    distinct: NDArray[np.bool_],
    voxels: NDArray[np.integer[Any]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Give every pair once, smaller node first, sorted, without loops and empty nodes."""
    ordered = np.sort(np.asarray(pairs, np.int64).reshape(-1, 2), axis=1)
    low, high = ordered[:, 0], ordered[:, 1]
    use = (low != high) & (low > 0)
    use &= (np.asarray(voxels)[low] > 0) & (np.asarray(voxels)[high] > 0)
    ordered, faces, apart = ordered[use], np.asarray(contacts, np.int64)[use], np.asarray(distinct, np.bool_)[use]
    order = np.lexsort((ordered[:, 1], ordered[:, 0]))
    ordered, faces, apart = ordered[order], faces[order], apart[order]
    if len(ordered) == 0:
        return ordered, faces, apart
    first = np.flatnonzero(np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)])
    return ordered[first], np.add.reduceat(faces, first), np.logical_or.reduceat(apart, first)


@njit(**JIT_EXACT)
def _adjacency(edges: NDArray[np.int64], n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    # Half-edge 2 e leaves edges[e, 0], half-edge 2 e + 1 leaves edges[e, 1]; -1 ends a node's list.
    heads = np.full(n, -1, np.int64)
    following = np.empty(2 * len(edges), np.int64)
    for half in range(2 * len(edges) - 1, -1, -1):
        node = edges[half // 2, half % 2]
        following[half] = heads[node]
        heads[node] = half
    return heads, following


@njit(**INNER_EXACT)
def _flatten(roots: NDArray[np.int64]) -> None:
    # A root is smaller than its members: one ascending pass suffices.
    for i in range(roots.size):
        roots[i] = roots[roots[i]]


@njit(**INNER_EXACT)
def _squared_distance(a: int, b: int, size: NDArray[np.int64], total: NDArray[np.float64]) -> float:
    squared = 0.0
    for c in range(total.shape[1]):
        difference = total[a, c] / size[a] - total[b, c] / size[b]
        squared += difference * difference
    return squared


@njit(**INNER_EXACT)
def _fold(graph: Any, roots: NDArray[np.int64], low: int, high: int, stamps: NDArray[np.int64]) -> None:
    """Make one list of the half-edges of two clusters that have become `low`, parallel edges folded into one."""
    edges, faces, apart, alive, heads, following = graph
    last = -1
    for source in (low, high):
        half = heads[source]
        while half >= 0:
            after = following[half]
            edge = half // 2
            if alive[edge]:
                other = find(roots, edges[edge, 1 - half % 2])
                kept = stamps[other]
                if other == low:
                    alive[edge] = False
                elif kept >= 0:
                    faces[kept] += faces[edge]
                    apart[kept] |= apart[edge]
                    alive[edge] = False
                else:
                    stamps[other] = edge
                    if last >= 0:
                        following[last] = half
                    else:
                        heads[low] = half
                    last = half
            half = after
    if last >= 0:
        following[last] = -1
    else:
        heads[low] = -1
    heads[high] = -1
    half = heads[low]
    while half >= 0:
        stamps[find(roots, edges[half // 2, 1 - half % 2])] = -1
        half = following[half]


@njit(**INNER_EXACT)
def _open_distance(
    edge: int,
    graph: Any,
    roots: NDArray[np.int64],
    size: NDArray[np.int64],
    total: NDArray[np.float64],
    limits: tuple[float, int, int],
) -> float:
    """Give the squared distance of an edge's two clusters; -1 where they may not be fused."""
    edges, faces, apart, alive, _, _ = graph
    bound, small, min_contacts = limits
    if not alive[edge] or apart[edge] or faces[edge] < min_contacts:
        return -1.0
    a = find(roots, edges[edge, 0])
    b = find(roots, edges[edge, 1])
    if size[a] >= small and size[b] >= small:
        return -1.0
    squared = _squared_distance(a, b, size, total)
    return squared if squared <= bound else -1.0


@njit(**INNER_EXACT)
def _push(
    edge: int,
    squared: float,
    edges: NDArray[np.int64],
    roots: NDArray[np.int64],
    distances: NDArray[np.float64],
    entries: NDArray[np.int64],
    n: int,
) -> int:
    """Put an edge on the heap, which has room for it."""
    a = find(roots, edges[edge, 0])
    b = find(roots, edges[edge, 1])
    distances[n] = squared
    entries[n, 0] = min(a, b)
    entries[n, 1] = max(a, b)
    entries[n, 2] = edge
    sift_up(distances, entries, n)
    return n + 1


@njit(**JIT_EXACT)
def _link(
    graph: Any,
    roots: NDArray[np.int64],
    size: NDArray[np.int64],
    total: NDArray[np.float64],
    limits: tuple[float, int, int],
) -> None:
    """Fuse the nearest two clusters, of which one is small, until none are within the bound."""
    edges, _, _, alive, heads, following = graph
    stamps = np.full(roots.size, -1, np.int64)
    # The distance at which each edge stands in the heap; of what else the heap holds of it, none is up to date.
    queued = np.full(len(edges), -1.0)
    distances, entries, n = np.empty(1024, np.float64), np.empty((1024, ENTRY), np.int64), 0
    for edge in range(len(edges)):
        queued[edge] = _open_distance(edge, graph, roots, size, total, limits)
        if queued[edge] >= 0:
            if n == distances.size:
                distances, entries, n = with_room_on_heap(distances, entries, n, queued)
            n = _push(edge, queued[edge], edges, roots, distances, entries, n)
    while n > 0:
        squared = distances[0]
        low, high, edge = entries[0, 0], entries[0, 1], entries[0, 2]
        n -= 1
        swap(distances, entries, 0, n)
        sift_down(distances, entries, n, 0)
        if not alive[edge] or queued[edge] != squared or roots[low] != low or roots[high] != high:
            continue
        # What leaves the larger one stands on the heap with two clusters that are gone.
        _forget(graph, high, queued)
        roots[high] = low
        size[low] += size[high]
        _add(total, low, high)
        _fold(graph, roots, low, high, stamps)
        half = heads[low]
        while half >= 0:
            edge = half // 2
            squared = _open_distance(edge, graph, roots, size, total, limits)
            # Where nothing has changed it stands there already.
            if squared >= 0 and squared != queued[edge]:
                queued[edge] = squared
                if n == distances.size:
                    distances, entries, n = with_room_on_heap(distances, entries, n, queued)
                n = _push(edge, squared, edges, roots, distances, entries, n)
            queued[edge] = squared
            half = following[half]


@njit(**INNER_EXACT)
def _forget(graph: Any, cluster: int, queued: NDArray[np.float64]) -> None:
    _, _, _, _, heads, following = graph
    half = heads[cluster]
    while half >= 0:
        queued[half // 2] = -1.0
        half = following[half]


@njit(**INNER_EXACT)
def _add(total: NDArray[np.float64], low: int, high: int) -> None:
    for c in range(total.shape[1]):
        total[low, c] += total[high, c]
