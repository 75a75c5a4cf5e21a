"""Objects without a core: voxels far from every core, connected where they are alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.distance import squared_distance
from spoco_blocks.kernels.gradient import squared_gradient_at
from spoco_blocks.kernels.half import INNER_EXACT, as_channels
from spoco_blocks.kernels.union_find import find, union


def core_at(embeddings: NDArray[Any], places: NDArray[np.integer[Any]], threshold: float) -> NDArray[np.bool_]:
    """Say at which of some voxels the embedding hardly changes.

    Parameters
    ----------
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        The embedding of every voxel.
    places : ndarray of int, shape (m,)
        Flat indices of the voxels.
    threshold : float
        Bound on the gradient magnitude, in embedding units.

    Returns
    -------
    ndarray of bool, shape (m,)
        Whether the gradient, as `core_mask` computes it, is below the threshold.

    Notes
    -----
    O(m c) time, with one place in memory for each value: for a small part of the voxels only.
    """
    core = np.empty(len(places), np.bool_)
    _core_at(as_channels(embeddings), embeddings.shape[1:], places, np.float32(threshold) ** 2, core)
    return core


def label_alike(
    places: NDArray[np.integer[Any]],
    vectors: NDArray[np.float32],
    shape: tuple[int, ...],
    max_distance: float,
    min_voxels: int,
) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
    """Label the components of listed voxels, of which 6-neighbours are connected whose embeddings are alike.

    Parameters
    ----------
    places : ndarray of int, shape (m,)
        Flat indices of the voxels, rising.
    vectors : ndarray of float32, shape (m, c)
        Their embeddings.
    shape : tuple of int
        z, y, x.
    max_distance : float
        How far the embeddings of two connected neighbours are from each other at most.
    min_voxels : int
        Components of fewer voxels get no label.

    Returns
    -------
    labels : ndarray of uint32, shape (m,)
        0, or 1 to n in the order of the components' first voxels.
    means : ndarray of float64, shape (n + 1, c)
        Their mean embeddings; row 0 is 0.

    Notes
    -----
    O(m c) time: three pointers follow the voxel in the list to its neighbours. Memory: 16 bytes per listed voxel.
    """
    # One type, whoever lists them: kernels are compiled for it before workers start.
    places = np.ascontiguousarray(places, np.int64)
    parents = np.arange(len(places))
    _link_listed(places, vectors, shape, np.float32(float(max_distance) ** 2), parents)
    sizes = np.bincount(parents, minlength=len(places))
    kept = sizes >= max(1, min_voxels)
    labels = np.where(kept, np.cumsum(kept), 0)[parents].astype(np.uint32)
    count = int(kept.sum()) + 1
    sums = np.stack([np.bincount(labels, channel, count) for channel in vectors.T], axis=1)
    sums[0] = 0
    return labels, sums / np.concatenate([[1], sizes[kept]])[:, None]


@njit(**INNER_EXACT)
def _core_at(
    flat: NDArray[Any],
    shape: tuple[int, int, int],
    places: NDArray[np.integer[Any]],
    bound: np.float32,
    core: NDArray[np.bool_],
) -> None:
    _, ny, nx = shape
    for j in range(len(places)):
        row = places[j] // nx
        core[j] = squared_gradient_at(flat, shape, row // ny, row % ny, places[j] % nx, bound) < bound


@njit(**INNER_EXACT)
def _link_listed(
    places: NDArray[np.int64],
    vectors: NDArray[np.float32],
    shape: tuple[int, int, int],
    bound: np.float32,
    parents: NDArray[np.int64],
) -> None:
    _, ny, nx = shape
    for axis in range(3):
        step = (ny * nx, nx, 1)[axis]
        limit = (0, ny, nx)[axis]
        i = 0
        for j in range(len(places)):
            wanted = places[j] - step
            while i < j and places[i] < wanted:
                i += 1
            # The voxel before the first of a row or plane is none of its neighbours.
            first = limit > 0 and (places[j] // step) % limit == 0
            if not first and i < j and places[i] == wanted and squared_distance(vectors[i], vectors[j]) <= bound:
                union(parents, i, j)
    for j in range(len(places)):
        parents[j] = find(parents, j)
