"""From the centres that a clustering of samples found to a label for every voxel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.kernels.components import equal_components
from spoco_blocks.kernels.lookup import apply_lookup
from spoco_blocks.kernels.mode_seeking import nearest_modes


def nearest_centres(
    embeddings: NDArray[Any],
    foreground: NDArray[np.bool_],
    centres: NDArray[np.float32],
    max_distance: float = np.inf,
) -> NDArray[np.uint32]:
    """Give every foreground voxel its nearest centre.

    Parameters
    ----------
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        The embedding of every voxel.
    foreground : ndarray of bool, shape (z, y, x)
        The voxels to assign.
    centres : ndarray of float32, shape (k, c)
        Centres of the clusters.
    max_distance : float
        Voxels farther than this from every centre get none.

    Returns
    -------
    ndarray of uint32, shape (z, y, x)
        0, or 1 to k.
    """
    if len(centres) == 0:
        return np.zeros(foreground.shape, np.uint32)
    clusters = nearest_modes(embeddings, foreground, centres, max_distance).view(np.uint32)
    # One more than the last centre stands for none.
    table = np.arange(len(centres) + 2, dtype=np.uint32)
    table[-1] = 0
    return apply_lookup(clusters, table)


def without_largest(clusters: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Make background of the cluster that has most voxels, the first of equals.

    Parameters
    ----------
    clusters : ndarray of uint32, shape (z, y, x)
        Clusters, 0 = none.

    Returns
    -------
    ndarray of uint32, shape (z, y, x)
        The others, under their numbers.
    """
    voxels = np.bincount(clusters.reshape(-1), minlength=2)
    table = np.arange(len(voxels), dtype=np.uint32)
    table[1 + np.argmax(voxels[1:])] = 0
    return apply_lookup(clusters, table)


def objects(clusters: NDArray[np.uint32], *, connected: bool, min_voxels: int) -> NDArray[np.uint32]:
    """Number what clusters stand for.

    Parameters
    ----------
    clusters : ndarray of uint32, shape (z, y, x)
        Clusters, 0 = none.
    connected : bool
        Whether every connected component is an object of its own.
    min_voxels : int
        Smaller objects become background.

    Returns
    -------
    ndarray of uint32, shape (z, y, x)
        0, or 1 to n without gaps.
    """
    if connected:
        return equal_components(clusters, min_voxels)[0]
    kept = np.bincount(clusters.reshape(-1)) >= max(1, min_voxels)
    kept[0] = False
    return apply_lookup(clusters, np.where(kept, np.cumsum(kept), 0).astype(np.uint32))
