"""Mutex watershed: one pass over sorted edges, in which attractive ones join and repulsive ones keep apart for good."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import JIT_EXACT
from spoco_blocks.kernels.union_find import find

# Strengths are sorted by counting: one level per value of a byte.
LEVELS = 256


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
    taken in the order of offsets, then voxels, so that the result is determined. O(edges) to sort, nearly as much to
    link; memory 17 bytes per edge with both ends in the mask and 48 per voxel.
    """
    if affinities.shape != (len(offsets), *mask.shape):
        raise ValueError(
            f"expected affinities of shape {(len(offsets), *mask.shape)} for {len(offsets)} offsets and a mask of "
            f"shape {mask.shape}; got {affinities.shape}."
        )
    flat, inside = np.ascontiguousarray(affinities).reshape(len(offsets), -1), np.ascontiguousarray(mask).reshape(-1)
    first, second, repulsive = _sorted_edges(
        flat, np.asarray(offsets, np.int64), attractive, inside, np.array(mask.shape, np.int64)
    )
    roots = mutex_clusters(first, second, repulsive, mask.size)
    labels: NDArray[np.uint32] = _numbered(roots, inside).reshape(mask.shape)
    return labels


@njit(**JIT_EXACT)
def _sorted_edges(
    affinities: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    attractive: int,
    inside: NDArray[np.bool_],
    shape: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    place = np.zeros(LEVELS + 1, np.int64)
    first, second, repulsive = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.bool_)
    for writing in (False, True):
        for o in range(len(offsets)):
            dz, dy, dx = offsets[o]
            step = (dz * shape[1] + dy) * shape[2] + dx
            for z in range(max(0, -dz), min(shape[0], shape[0] - dz)):
                for y in range(max(0, -dy), min(shape[1], shape[1] - dy)):
                    for x in range(max(0, -dx), min(shape[2], shape[2] - dx)):
                        i = (z * shape[1] + y) * shape[2] + x
                        if not (inside[i] and inside[i + step]):
                            continue
                        affinity = np.int64(affinities[o, i])
                        level = affinity if o >= attractive else LEVELS - 1 - affinity
                        if writing:
                            first[place[level]], second[place[level]] = i, i + step
                            repulsive[place[level]] = o >= attractive
                            place[level] += 1
                        else:
                            place[level + 1] += 1
        if not writing:
            place = np.cumsum(place)
            first, second = np.empty(place[LEVELS], np.int64), np.empty(place[LEVELS], np.int64)
            repulsive = np.empty(place[LEVELS], np.bool_)
    return first, second, repulsive


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


@njit(**JIT_EXACT)
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


@njit(**JIT_EXACT)
def _numbered(roots: NDArray[np.int64], inside: NDArray[np.bool_]) -> NDArray[np.uint32]:
    labels, number, count = np.zeros(len(roots), np.uint32), np.zeros(len(roots), np.uint32), 0
    for i in range(len(roots)):
        if inside[i]:
            if number[roots[i]] == 0:
                count += 1
                number[roots[i]] = count
            labels[i] = number[roots[i]]
    return labels
