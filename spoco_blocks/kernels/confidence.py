"""How sure each segment is: how well its voxels agree, and how far the next one is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from spoco_blocks.kernels.half import JIT_EXACT, as_channels
from spoco_blocks.kernels.rows import widen_row

# Voxels that are taken together: their embeddings stay in the innermost cache.
STRIP_VOXELS = 256


def confidences(
    labels: NDArray[np.uint32],
    embeddings: NDArray[Any],
    means: NDArray[np.floating[Any]],
    pairs: NDArray[np.integer[Any]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Say how clearly each label is told apart from those that it touches.

    Parameters
    ----------
    labels : ndarray of uint32, shape (z, y, x)
        0, or 1 to k.
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        The embedding of every voxel.
    means : ndarray of float, shape (k + 1, c)
        Mean embedding of each label; row 0 is not used.
    pairs : ndarray of int, shape (m, 2)
        Labels that touch, as `contacts` gives them.

    Returns
    -------
    confidence : ndarray of float64, shape (k + 1,)
        In [0, 1]: 1 minus the spread divided by half of the distance to the nearest mean of a touching label, 0 where
        the voxels are farther from their mean than the border to the next object. Where nothing touches, half of the
        distance to the nearest mean of all; 1 for a single label. 0 for labels without voxels.
    spread : ndarray of float64, shape (k + 1,)
        Mean distance of the label's voxels to its mean, in embedding units.

    Notes
    -----
    One pass over the embeddings, O(n c) time, and the means' own distances: O(m c), a search tree for labels that touch
    nothing. Memory: 24 bytes per label.
    """
    count = len(means) - 1
    total, voxels = np.zeros(count + 1), np.zeros(count + 1, np.int64)
    narrow = np.ascontiguousarray(means, np.float32)
    _add_distances(np.ascontiguousarray(labels), as_channels(embeddings), narrow, total, voxels)
    spread = total / np.maximum(voxels, 1)
    gaps = nearest_gaps(np.asarray(means, np.float64), pairs, voxels)
    with np.errstate(invalid="ignore"):
        confidence = np.clip(1 - 2 * spread / gaps, 0, 1)
    confidence[(voxels == 0) | (gaps == 0)] = 0
    return confidence, spread


def nearest_gaps(
    means: NDArray[np.float64], pairs: NDArray[np.integer[Any]], voxels: NDArray[np.integer[Any]]
) -> NDArray[np.float64]:
    """Give the distance from each label's mean to the nearest one of a touching label, else of any.

    Parameters
    ----------
    means : ndarray of float64, shape (k + 1, c)
        Mean embedding of each label; row 0 is not used.
    pairs : ndarray of int, shape (m, 2)
        Labels that touch.
    voxels : ndarray of int, shape (k + 1,)
        Voxels of each label; those without any do not count.

    Returns
    -------
    ndarray of float64, shape (k + 1,)
        Infinite where there is no other.
    """
    gaps = np.full(len(means), np.inf)
    pairs = np.asarray(pairs, np.int64).reshape(-1, 2)
    distances = np.linalg.norm(means[pairs[:, 0]] - means[pairs[:, 1]], axis=1)
    for side in (0, 1):
        np.minimum.at(gaps, pairs[:, side], distances)
    present = np.flatnonzero(voxels[1:] > 0) + 1
    alone = present[np.isinf(gaps[present])]
    if len(alone) and len(present) > 1:
        # The nearest is the label itself, or one that is equal.
        gaps[alone] = cKDTree(means[present]).query(means[alone], k=2)[0][:, 1]
    return gaps


@njit(**JIT_EXACT)
def _add_distances(
    labels: NDArray[np.uint32],
    flat: NDArray[Any],
    means: NDArray[np.float32],
    total: NDArray[np.float64],
    voxels: NDArray[np.int64],
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
                voxels[label] += 1
