"""Reading a row of voxels out of a channel-first array."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import INNER_EXACT, widen


@njit(**INNER_EXACT)
def widen_row(values: NDArray[Any], out: NDArray[np.float32]) -> None:
    """Convert one channel of one row to float32.

    Parameters
    ----------
    values : ndarray of uint16 (float16 bits) or float32, shape (x,)
        The values, as `as_bits` gives them.
    out : ndarray of float32, shape (x,)
        Where they go.

    Notes
    -----
    Contiguous on both sides, so that it becomes vector code; converted one by one, float16 takes ten times as long.
    """
    for x in range(values.size):
        out[x] = widen(values[x])


@njit(**INNER_EXACT)
def load_row(
    embeddings: NDArray[Any], z: int, y: int, channels_first: NDArray[np.float32], voxels_first: NDArray[np.float32]
) -> None:
    """Give the embeddings of a row with each voxel's channels side by side.

    Parameters
    ----------
    embeddings : ndarray of uint16 (float16 bits) or float32, shape (c, z, y, x)
        The embedding of every voxel, as `as_bits` gives it.
    z, y : int
        The row.
    channels_first : ndarray of float32, shape (c, x)
        Scratch memory.
    voxels_first : ndarray of float32, shape (x, c)
        Where the embeddings go.

    Notes
    -----
    O(x c) time: conversion, then transposition within the cache.
    """
    for c in range(channels_first.shape[0]):
        widen_row(embeddings[c, z, y], channels_first[c])
    for x in range(voxels_first.shape[0]):
        vector = voxels_first[x]
        for c in range(vector.size):
            vector[c] = channels_first[c, x]
