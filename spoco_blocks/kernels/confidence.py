"""How sure each segment is: how well its voxels agree, and how far the next one is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from spoco_blocks.kernels.half import JIT_EXACT, as_channels
from spoco_blocks.kernels.rows import widen_row

# Voxels that are taken together: their embeddings stay in the innermost cache.
STRIP_VOXELS = 256


def distance_sums(
    labels: NDArray[np.uint32], embeddings: NDArray[Any], means: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Sum up how far the voxels of each label lie from its mean.

    Parameters
    ----------
    labels : ndarray of uint32, shape (z, y, x)
        0, or 1 to k.
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        The embedding of every voxel.
    means : ndarray of float, shape (k + 1, c)
        Mean embedding of each label; row 0 is not used.

    Returns
    -------
    ndarray of float64, shape (k + 1,)
        Sums of distances, in embedding units; 0 for label 0.

    Notes
    -----
    One pass over the embeddings, O(n c) time.
    """
    total = np.zeros(len(means))
    narrow = np.ascontiguousarray(means, np.float32)
    _add_distances(np.ascontiguousarray(labels), as_channels(embeddings), narrow, total)
    return total


def nearest_gaps(
    means: NDArray[np.float64], pairs: Iterable[NDArray[np.integer[Any]]], present: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Give the distance from each label's mean to the nearest one of a touching label, else of any.

    Parameters
    ----------
    means : ndarray of float64, shape (k + 1, c)
        Mean embedding of each label; row 0 is not used.
    pairs : iterable of ndarray of int, shape (m, 2)
        Labels that touch, in parts.
    present : ndarray of bool, shape (k + 1,)
        Labels that there are; the others do not count.

    Returns
    -------
    ndarray of float64, shape (k + 1,)
        Infinite where there is no other.

    Notes
    -----
    O(m c), and a search tree for labels that touch nothing.
    """
    gaps = np.full(len(means), np.inf)
    for part in pairs:
        distances = np.linalg.norm(means[part[:, 0]] - means[part[:, 1]], axis=1)
        for side in (0, 1):
            np.minimum.at(gaps, part[:, side], distances)
    labels = np.flatnonzero(present[1:]) + 1
    alone = labels[np.isinf(gaps[labels])]
    if len(alone) and len(labels) > 1:
        # The nearest is the label itself, or one that is equal.
        gaps[alone] = cKDTree(means[labels]).query(means[alone], k=2)[0][:, 1]
    return gaps


def confidences(spread: NDArray[np.float64], gaps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Say how clearly objects are told apart from those that they touch.

    Parameters
    ----------
    spread : ndarray of float64, shape (k,)
        Mean distance of an object's voxels to its mean.
    gaps : ndarray of float64, shape (k,)
        Distance of that mean to the nearest other one, see `nearest_gaps`.

    Returns
    -------
    ndarray of float64, shape (k,)
        In [0, 1]: 1 minus the spread over half of the gap; 0 where voxels are farther from their mean than the border
        to the next object, 1 where there is no other.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        confidence = np.clip(1 - 2 * spread / gaps, 0, 1)
    return np.where(gaps == 0, 0, confidence)


@njit(**JIT_EXACT)
def _add_distances(
    labels: NDArray[np.uint32],
    flat: NDArray[Any],
    means: NDArray[np.float32],
    total: NDArray[np.float64],
) -> None:
    line = np.empty(STRIP_VOXELS, np.float32)
    squared = np.empty(STRIP_VOXELS, np.float32)
    names = labels.reshape(-1)
    for start in range(0, names.size, STRIP_VOXELS):
        size = min(STRIP_VOXELS, names.size - start)
        if not np.any(names[start : start + size]):
            continue
        squared[:] = 0
        for c in range(len(flat)):
            widen_row(flat[c, start : start + size], line[:size])
            for i in range(size):
                difference = line[i] - means[names[start + i], c]
                squared[i] += difference * difference
        for i in range(size):
            label = names[start + i]
            if label > 0:
                total[label] += np.sqrt(squared[i])
