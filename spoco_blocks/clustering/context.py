"""What is decided once per volume, so that all blocks agree on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Context:
    """Volume-wide decisions that a method is given; what is None it decides on the array itself.

    Attributes
    ----------
    gradient_threshold : float or None
        Bound on the embedding gradient of core voxels.
    modes : ndarray of float32, shape (k, c), or None
        Modes of the embedding's density, in the coordinates of the array that is clustered.
    seed : int
        Seed of every draw that is left to the method.
    """

    gradient_threshold: float | None = None
    modes: NDArray[np.float32] | None = None
    seed: int = 0
