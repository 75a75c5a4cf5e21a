"""Distances of embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import INNER, widen

# A squared distance above any other; no infinity, of which kernels that may reorder sums need not know.
FAR = np.float32(np.finfo(np.float32).max)
# Of `DistanceBounds`: nothing is known.
UNKNOWN = np.uint8(255)


@dataclass(frozen=True, eq=False)
class DistanceBounds:
    """How far voxels are at most from the mean of their label.

    Attributes
    ----------
    units : ndarray of uint8, shape (z + 2, y + 2, x + 2)
        The distance to a mean, rounded up, in units; `UNKNOWN` where none is known.
    unit : float
        In embedding units.
    moved : ndarray of float, shape (k + 1,)
        How far the mean of each label has moved since, at most.
    """

    units: NDArray[np.uint8]
    unit: float
    moved: NDArray[np.floating[Any]]


@njit(**INNER)
def squared_distance(vector: NDArray[Any], mean: NDArray[np.float32]) -> np.float32:
    """Give the squared distance of two vectors.

    Parameters
    ----------
    vector : ndarray of uint16 (float16 bits) or float32, shape (c,)
        An embedding.
    mean : ndarray of float32, shape (c,)
        Another one, or a mean of some.

    Returns
    -------
    float32
        The sum of squared differences.

    Notes
    -----
    One vector loop; the order of the sum depends on c alone.
    """
    total = np.float32(0)
    for c in range(mean.size):
        difference = widen(vector[c]) - mean[c]
        total += difference * difference
    return total
