"""The skeleton of a labelled object: its centre lines as a graph."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Skeleton(NamedTuple):
    """Centre lines.

    Attributes
    ----------
    places : ndarray of int64, shape (n, 3)
        Voxels z, y, x that they run through.
    edges : ndarray of int64, shape (m, 2)
        Which of them are joined; a tree for each part of the object.
    radii : ndarray of float32, shape (n,)
        Distance to where the object ends, in the unit of the spacing.
    """

    places: NDArray[np.int64]
    edges: NDArray[np.int64]
    radii: NDArray[np.float32]


def skeleton(
    inside: NDArray[np.bool_], spacing: tuple[float, float, float], branch_radii: float, branch_length: float
) -> Skeleton:
    """Find the centre lines of an object.

    Parameters
    ----------
    inside : ndarray of bool, shape (z, y, x)
        The object, whole.
    spacing : tuple of float
        Extent of a voxel along z, y, x.
    branch_radii, branch_length : float
        What lies within so many radii of a line and this length more, in the unit of the spacing, gets no branch.

    Returns
    -------
    Skeleton
        Connected within each part of the object whose voxels touch by faces, edges or corners; rings are opened.

    Notes
    -----
    TEASAR (Sato et al., Pacific Graphics 2000) as bioimage-cpp has it. Thinning (scikit-image's `skeletonize`) deletes
    objects of even thickness whole, https://github.com/scikit-image/scikit-image/issues/3757. O(n log n) time for each
    branch at most; 50 bytes per voxel of the object, and 1 per voxel of the array.
    """
    # Compiled, and an extra: only those who thin objects need it.
    from bioimage_cpp.skeleton import teasar

    vertices, edges, radii = teasar(inside, spacing=spacing, scale=branch_radii, constant=branch_length)
    places = np.rint(vertices / spacing).astype(np.int64).reshape(-1, 3)
    return Skeleton(places, edges.astype(np.int64).reshape(-1, 2), radii.astype(np.float32))
