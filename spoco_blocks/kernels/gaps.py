"""Gaps: the connected pieces of background between labelled regions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.kernels.components import equal_components


def number_gaps(labels: NDArray[np.uint32], *, planar: bool) -> NDArray[np.uint32]:
    """Number the pieces of background behind the labels.

    Parameters
    ----------
    labels : ndarray of uint32, shape (z, y, x)
        0 = background, else 1 to k, all of which occur.
    planar : bool
        Whether z counts independent images, which no piece of background joins.

    Returns
    -------
    ndarray of uint32, shape (z, y, x)
        The labels, and k + 1 to k + g for the 6-connected pieces of background in the raster order of their first
        voxels; without 0.

    Notes
    -----
    Depends on the labels alone, so that whoever has them numbers alike. O(n) time, 16 bytes per voxel.
    """
    background = (labels == 0).astype(np.uint32)
    if planar:
        background *= np.arange(1, len(labels) + 1, dtype=np.uint32)[:, None, None]
    gaps, _ = equal_components(background)
    np.add(gaps, labels.max(initial=0), out=gaps, where=gaps > 0)
    np.copyto(gaps, labels, where=labels > 0)
    return gaps


def enclosing(
    pairs: NDArray[np.int64], segments: NDArray[Any], roots: NDArray[Any], low: NDArray[Any], high: NDArray[Any]
) -> None:
    """Note which segments holes touch.

    Parameters
    ----------
    pairs : ndarray of int64, shape (m, 2)
        Pieces that touch.
    segments : ndarray of unsigned int, shape (n,)
        The segment of every piece, 0 = none.
    roots : ndarray of int, shape (n,)
        The hole of every piece without a segment.
    low, high : ndarray of unsigned int, shape (n,)
        Smallest and largest segment that each hole touches, lowered and raised in place. Both are equal in the end
        where it is a single one.

    Notes
    -----
    O(m) time.
    """
    for hole, other in ((0, 1), (1, 0)):
        found = pairs[(segments[pairs[:, hole]] == 0) & (segments[pairs[:, other]] > 0)]
        touched = segments[found[:, other]]
        np.minimum.at(low, roots[found[:, hole]], touched)
        np.maximum.at(high, roots[found[:, hole]], touched)
