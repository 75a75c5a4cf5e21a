"""What a method is given beside embeddings and foreground."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Affinities:
    """Whether voxels at fixed offsets from each other belong to one object.

    Attributes
    ----------
    values : ndarray of uint8, shape (o, z, y, x)
        Probabilities, 255 = 1.
    offsets : ndarray of int64, shape (o, 3)
        Offsets from each voxel to its partner, z, y, x; direct neighbours first.
    neighbours : int
        How many of them are direct neighbours.
    """

    values: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    neighbours: int


@dataclass(frozen=True, eq=False)
class Context:
    """Volume-wide decisions that a method is given, so that all blocks agree; what is None it decides by itself.

    Attributes
    ----------
    gradient_threshold : float or None
        Bound on the embedding gradient of core voxels.
    coreless_threshold : float or None
        The same where a voxel is far from every core.
    modes : ndarray of float32, shape (k, c), or None
        Modes of the embedding's density, in the coordinates of the array that is clustered.
    affinities : Affinities or None
        Of the array that is clustered; None when the network predicts none, or the method needs none.
    other : ndarray of float16 or float32, shape (c, z, y, x), or None
        What the other of the networks f and g embeds the array as, for methods that ask whether both agree.
    smallest_voxels : int or None
        Size of small objects of the volume: by it a label is told from a piece of another.
    cut : tuple of (bool, bool)
        Along z, y, x: whether the volume goes on before the array, and behind it, so that objects there are cut.
    step : tuple of int
        Along z, y, x: every how many voxels one is clustered before the others follow; 1 where voxels are long.
    seed : int
        Seed of every draw that is left to the method.
    """

    gradient_threshold: float | None = None
    coreless_threshold: float | None = None
    modes: NDArray[np.float32] | None = None
    affinities: Affinities | None = None
    other: NDArray[Any] | None = None
    smallest_voxels: int | None = None
    cut: tuple[tuple[bool, bool], ...] = ((False, False),) * 3
    step: tuple[int, int, int] = (2, 2, 2)
    seed: int = 0
