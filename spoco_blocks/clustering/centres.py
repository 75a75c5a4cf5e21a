"""From the centres that a clustering of samples found to a label for every voxel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.kernels.components import equal_components
from spoco_blocks.kernels.lookup import apply_lookup
from spoco_blocks.kernels.mode_seeking import nearest_modes


def label_by_centre(
    embeddings: NDArray[Any],
    foreground: NDArray[np.bool_],
    centres: NDArray[np.float32],
    *,
    max_distance: float,
    connected: bool,
    min_voxels: int,
) -> NDArray[np.uint32]:
    """Give every foreground voxel the label of its nearest centre.

    Parameters
    ----------
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        The embedding of every voxel.
    foreground : ndarray of bool, shape (z, y, x)
        The voxels to label.
    centres : ndarray of float32, shape (k, c)
        Centres of the clusters.
    max_distance : float
        Voxels farther than this from every centre become background.
    connected : bool
        Whether every connected component is an object of its own.
    min_voxels : int
        Smaller objects become background.

    Returns
    -------
    ndarray of uint32, shape (z, y, x)
        0, or 1 to n without gaps.
    """
    if len(centres) == 0:
        return np.zeros(foreground.shape, np.uint32)
    nearest = nearest_modes(embeddings, foreground, centres, max_distance)
    nearest[nearest == len(centres) + 1] = 0
    if connected:
        labels, _ = equal_components(nearest, min_voxels)
        return labels
    sizes = np.bincount(nearest.reshape(-1), minlength=len(centres) + 1)
    kept = sizes >= max(1, min_voxels)
    kept[0] = False
    table = np.where(kept, np.cumsum(kept), 0).astype(np.uint32)
    return apply_lookup(nearest.view(np.uint32), table)
