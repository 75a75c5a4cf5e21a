"""What of a partition is an object, and what a piece that belongs to one nearby."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spoco_blocks.clustering.context import Context
from spoco_blocks.kernels.contacts import contacts
from spoco_blocks.kernels.lookup import apply_lookup

# Where nothing is known of the size of objects.
PIECE_VOXELS = 50


def without_pieces(
    labels: NDArray[np.uint32], foreground: NDArray[np.bool_], context: Context, min_voxels: int | None, reach: int
) -> NDArray[np.uint32]:
    """Give pieces that are too small to be objects to the nearest object.

    Parameters
    ----------
    labels : ndarray of uint32, shape (z, y, x)
        Labels.
    foreground : ndarray of bool, shape (z, y, x)
        What may have a label.
    context : Context
        Says how large objects are, and where the array cuts them.
    min_voxels : int or None
        Smaller labels are pieces; None = by a small object of the volume: of half its size where a label is alone, of
        four fifths where it touches another, of which it may be a part.
    reach : int
        How far away the object may be, in voxels; pieces farther from all become background.

    Returns
    -------
    ndarray of uint32, shape (z, y, x)
        0, or 1 to k in the order of the labels that stay.
    """
    counts = np.bincount(labels.reshape(-1))
    kept = counts >= _least(labels, counts, context, min_voxels)
    kept[0] = False
    return fill(apply_lookup(labels, np.where(kept, np.cumsum(kept), 0).astype(np.uint32)), foreground, reach)


def _least(
    labels: NDArray[np.uint32], counts: NDArray[np.int64], context: Context, min_voxels: int | None
) -> NDArray[np.int64]:
    """Give the voxels that a label needs to be an object; of an object that the array cuts, few need be in it."""
    if min_voxels is not None or context.smallest_voxels is None:
        return np.full(counts.shape, max(1, PIECE_VOXELS if min_voxels is None else min_voxels))
    least = np.full(counts.shape, max(1, context.smallest_voxels // 2))
    least[np.unique(contacts(labels)[0])] = max(1, 4 * context.smallest_voxels // 5)
    for axis, ends in enumerate(context.cut):
        for plane, cut in zip((0, -1), ends, strict=True):
            if cut:
                touching = np.take(labels, plane, axis)
                least[touching] = np.minimum(least[touching], PIECE_VOXELS)
    return least


def fill(labels: NDArray[np.uint32], foreground: NDArray[np.bool_], reach: int) -> NDArray[np.uint32]:
    """Give foreground without a label that of the nearest labelled voxel.

    Parameters
    ----------
    labels : ndarray of uint32, shape (z, y, x)
        Labels.
    foreground : ndarray of bool, shape (z, y, x)
        What may be filled.
    reach : int
        How far away the labelled voxel may be, in voxels.

    Returns
    -------
    ndarray of uint32, shape (z, y, x)
        Filled labels; the array itself where there is nothing to fill.
    """
    empty = foreground & (labels == 0)
    if not reach or not empty.any() or not labels.any():
        return labels
    distance, nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    empty &= distance <= reach
    filled = labels.copy()
    filled[empty] = labels[tuple(index[empty] for index in nearest)]
    return filled
