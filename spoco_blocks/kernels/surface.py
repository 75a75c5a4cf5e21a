"""The surface of a labelled object as triangles."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from skimage.measure import marching_cubes

from spoco_blocks.kernels.half import INNER_EXACT


def object_boxes(labels: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]:
    """Find every label and the box that it fills.

    Parameters
    ----------
    labels : ndarray of uint32, shape (z, y, x)
        0 = background.

    Returns
    -------
    ids : ndarray of uint32, shape (k,)
        Labels that occur, in rising order, without 0.
    start, stop : ndarray of int64, shape (k, 3)
        Their boxes, `stop` excluded.

    Notes
    -----
    O(n log n) time for the ids; the boxes take one pass by runs of equal label.
    """
    ids = np.unique(labels)
    ids = ids[ids > 0]
    start = np.full((len(ids), 3), np.iinfo(np.int64).max)
    stop = np.zeros((len(ids), 3), np.int64)
    _extend_boxes(np.ascontiguousarray(labels), ids, start, stop)
    return ids, start, stop


def surface(inside: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Triangulate where an object ends, between the centres of voxels inside and outside of it.

    Parameters
    ----------
    inside : ndarray of bool, shape (z, y, x)
        The object; what lies outside of the array is not known, so that the surface is open there.

    Returns
    -------
    vertices : ndarray of int64, shape (n, 3)
        Positions z, y, x in half voxels, counted from the centre of the first voxel.
    triangles : ndarray of uint32, shape (m, 3)
        Vertices of each triangle. Its right-handed normal in the order x, y, z points out of the object.

    Notes
    -----
    What is made of a cube of eight voxel centres follows from these eight alone, and two cubes agree on the face
    between them: surfaces of arrays that share a plane of voxels fit, without gap or overlap. O(n) time.
    """
    if min(inside.shape) < 2 or inside.all() or not inside.any():
        return np.zeros((0, 3), np.int64), np.zeros((0, 3), np.uint32)
    # The default, lewiner, decides faces on which voxels touch by an edge by rounding: cubes may disagree, and edges be
    # shared by four triangles.
    vertices, triangles, _, _ = marching_cubes(inside.astype(np.float32), 0.5, method="lorensen")
    return np.rint(2 * vertices).astype(np.int64), triangles.astype(np.uint32)


@njit(**INNER_EXACT)
def _extend_boxes(
    labels: NDArray[np.uint32], ids: NDArray[np.uint32], start: NDArray[np.int64], stop: NDArray[np.int64]
) -> None:
    nz, ny, nx = labels.shape
    for z in range(nz):
        for y in range(ny):
            row = labels[z, y]
            x = 0
            while x < nx:
                label, first = row[x], x
                while x < nx and row[x] == label:
                    x += 1
                if label == 0:
                    continue
                place = np.searchsorted(ids, label)
                low, high = start[place], stop[place]
                low[0], low[1], low[2] = min(low[0], z), min(low[1], y), min(low[2], first)
                high[0], high[1], high[2] = max(high[0], z + 1), max(high[1], y + 1), max(high[2], x)
