"""The nearest of many modes, for voxels beside others that know theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.distance import squared_distance
from spoco_blocks.kernels.half import JIT

# The triangle bound on squared distances is 4; a little more, so that rounding never rules out a mode that is as near.
WITHIN = np.float32(4.001)


@njit(**JIT)
def nearest_mode(
    vector: NDArray[np.float32], guess: int, above: int, before: int, table: Any
) -> tuple[int, np.float32]:
    """Give the nearest mode of an embedding.

    Parameters
    ----------
    vector : ndarray of float32, shape (c,)
        The embedding.
    guess : int
        A mode, 0 to k - 1: that of the voxel to the left.
    above, before : int
        1 + the modes of the voxels above and before, or 0, or k + 1.
    table : tuple of ndarrays
        As `mode_table` gives it.

    Returns
    -------
    mode : int
        The nearest, 0 to k - 1; the first of equally near ones.
    squared : float32
        Its squared distance.

    Notes
    -----
    One distance where the guess is right and its neighbours are far, by the triangle inequality (Elkan, ICML 2003).
    """
    modes, neighbours, gaps = table
    k = len(modes)
    squared = squared_distance(vector, modes[guess])
    if k == 1 or gaps[guess, 0] > WITHIN * squared:
        return guess, squared
    # Another object has begun; the rows beside this one know which.
    mode = guess
    for hint in (above, before):
        if 0 < hint <= k and hint - 1 != mode:
            other = squared_distance(vector, modes[hint - 1])
            if other < squared:
                squared = other
                mode = hint - 1
    return _closest(vector, mode, squared, modes, neighbours, gaps)  # type: ignore[no-any-return]


@njit(**JIT)
def _closest(
    vector: NDArray[np.float32],
    start: int,
    squared: np.float32,
    modes: NDArray[np.float32],
    neighbours: NDArray[np.int32],
    gaps: NDArray[np.float32],
) -> tuple[int, np.float32]:
    """Give the nearest mode, starting from one whose squared distance is known."""
    width = neighbours.shape[1]
    best = squared
    mode = start
    for q in range(width):
        if gaps[start, q] > WITHIN * squared:
            return mode, best
        candidate = neighbours[start, q]
        other = squared_distance(vector, modes[candidate])
        if other < best or (other == best and candidate < mode):
            best = other
            mode = candidate
    if width < len(modes) - 1:
        for candidate in range(len(modes)):
            other = squared_distance(vector, modes[candidate])
            if other < best or (other == best and candidate < mode):
                best = other
                mode = candidate
    return mode, best
