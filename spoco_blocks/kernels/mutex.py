"""Mutex watershed on a graph: attractive edges join, repulsive ones keep apart for good, the strongest first."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import INNER_EXACT, JIT_EXACT
from spoco_blocks.kernels.union_find import find


@njit(**JIT_EXACT)
def mutex_clusters(
    first: NDArray[np.int64], second: NDArray[np.int64], repulsive: NDArray[np.bool_], n: int
) -> NDArray[np.int64]:
    """Cluster nodes by edges in falling order of their strength.

    Parameters
    ----------
    first, second : ndarray of int64, shape (m,)
        Ends of the edges, strongest edge first.
    repulsive : ndarray of bool, shape (m,)
        Whether an edge keeps its ends apart (True) or joins them, unless they must stay apart (False).
    n : int
        Number of nodes.

    Returns
    -------
    ndarray of int64, shape (n,)
        The smallest node of the cluster that each node ended in.

    Notes
    -----
    Exclusions are kept as a hash set of pairs of roots, and as one linked list per root, of which the shorter is moved
    when two clusters join: O(m log m) in all.
    """
    parents, degree, head = np.arange(n), np.zeros(n, np.int64), np.full(n, -1, np.int64)
    keys, used = np.full(1 << 12, -1, np.int64), 0
    others, following, nodes = np.empty(1 << 12, np.int64), np.empty(1 << 12, np.int64), 0
    for edge in range(len(first)):
        a, b = find(parents, first[edge]), find(parents, second[edge])
        if a == b or keys[_slot(keys, a, b, n)] >= 0:
            continue
        if nodes + 2 + min(degree[a], degree[b]) > len(others):
            more = np.empty(len(others) + 2 + min(degree[a], degree[b]), np.int64)
            others, following = np.concatenate((others, more)), np.concatenate((following, more))
        if repulsive[edge]:
            keys[_slot(keys, a, b, n)] = min(a, b) * n + max(a, b)
            used += 1
            for u, v in ((a, b), (b, a)):
                others[nodes], following[nodes], head[u] = v, head[u], nodes
                degree[u] += 1
                nodes += 1
        else:
            if degree[a] < degree[b]:
                a, b = b, a
            parents[b] = a
            node = head[b]
            while node >= 0:
                after = following[node]
                v = find(parents, others[node])
                slot = _slot(keys, a, v, n)
                if keys[slot] < 0:
                    keys[slot] = min(a, v) * n + max(a, v)
                    used += 1
                    # The list entry moves from b to a; v gets a new one.
                    others[node], following[node], head[a] = v, head[a], node
                    others[nodes], following[nodes], head[v] = a, head[v], nodes
                    degree[a] += 1
                    degree[v] += 1
                    nodes += 1
                    if 2 * used > len(keys):
                        keys = _doubled(keys, n)
                node = after
        if 2 * used > len(keys):
            keys = _doubled(keys, n)
    smallest, roots = np.full(n, -1, np.int64), np.empty(n, np.int64)
    for i in range(n):
        root = find(parents, i)
        if smallest[root] < 0:
            smallest[root] = i
        roots[i] = smallest[root]
    return roots


@njit(**INNER_EXACT)
def _slot(keys: NDArray[np.int64], a: int, b: int, n: int) -> int:
    """Give where the pair is in the hash set, or where it would be put."""
    key = min(a, b) * n + max(a, b)
    mask = len(keys) - 1
    slot = ((key * np.int64(-7046029254386353131)) >> np.int64(20)) & mask
    while keys[slot] >= 0 and keys[slot] != key:
        slot = (slot + 1) & mask
    return int(slot)


@njit(**JIT_EXACT)
def _doubled(keys: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    larger = np.full(2 * len(keys), -1, np.int64)
    for key in keys:
        if key >= 0:
            larger[_slot(larger, key // n, key % n, n)] = key
    return larger
