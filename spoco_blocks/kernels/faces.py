"""Labels that face each other across the border of two blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def face_contacts(
    plane_a: NDArray[np.uint32], plane_b: NDArray[np.uint32]
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Count the voxels at which a label of one plane faces a label of the other.

    Parameters
    ----------
    plane_a, plane_b : ndarray of uint32, same shape
        The two outermost planes on either side of the border.

    Returns
    -------
    pairs : ndarray of uint32, shape (m, 2)
        Every pair of non-zero labels that face each other, that of `plane_a` first; unique and sorted.
    counts : ndarray of int64, shape (m,)
        At how many voxels.

    Raises
    ------
    ValueError
        When the planes differ in shape.

    Notes
    -----
    O(n log n) time and 8 bytes per voxel of a plane.
    """
    if plane_a.shape != plane_b.shape:
        raise ValueError(f"planes that face each other have one shape; got {plane_a.shape} and {plane_b.shape}.")
    both = (plane_a > 0) & (plane_b > 0)
    keys = plane_a[both].astype(np.uint64) << np.uint64(32) | plane_b[both]
    unique, counts = np.unique(keys, return_counts=True)
    pairs = np.stack([unique >> np.uint64(32), unique & np.uint64(0xFFFFFFFF)], axis=1)
    return pairs.astype(np.uint32), counts.astype(np.int64)
