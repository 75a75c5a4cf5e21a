"""Modes that several regions found of the same object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree


def merge_modes(
    modes: NDArray[np.float64], counts: NDArray[np.int64], radius: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Join modes that regions found of the same object.

    Parameters
    ----------
    modes : ndarray of float64, shape (n, c)
        Modes of all regions, in one frame.
    counts : ndarray of int64, shape (n,)
        Samples behind each.
    radius : float
        Modes nearer than this to one with more samples are represented by it.

    Returns
    -------
    merged : ndarray of float64, shape (m, c)
        The representatives.
    representative : ndarray of int64, shape (n,)
        Which of them stands for each mode.
    """
    owner = np.full(len(modes), -1)
    if not len(modes):
        return modes, owner
    tree = cKDTree(modes)
    chosen: list[int] = []
    for index in np.lexsort((np.arange(len(modes)), -counts)):
        if owner[index] < 0:
            near = [i for i in tree.query_ball_point(modes[index], radius) if owner[i] < 0]
            owner[near] = len(chosen)
            chosen.append(int(index))
    return modes[chosen], owner
