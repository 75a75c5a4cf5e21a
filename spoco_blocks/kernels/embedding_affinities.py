"""Affinities between voxels from how far apart their embeddings are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import JIT, as_bits
from spoco_blocks.kernels.rows import widen_row


def embedding_affinities(
    embeddings: NDArray[Any], offsets: NDArray[np.int64], same: float, different: float
) -> NDArray[np.uint8]:
    """Say of voxels at fixed offsets how likely they belong together.

    Parameters
    ----------
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        The embedding of every voxel.
    offsets : ndarray of int64, shape (o, 3)
        The offsets, z, y, x.
    same, different : float
        At this distance and nearer an affinity is 1, at that distance and farther it is 0, in between it falls evenly.

    Returns
    -------
    ndarray of uint8, shape (o, z, y, x)
        Affinities, 255 = 1; 0 where the partner is outside of the array.

    Notes
    -----
    O(voxels offsets c) time in vector code; memory o bytes per voxel.
    """
    affinities = np.zeros((len(offsets), *embeddings.shape[1:]), np.uint8)
    offsets = np.asarray(offsets, np.int64).reshape(-1, 3)
    _compare(as_bits(embeddings), offsets, np.float32(same), np.float32(different), affinities)
    return affinities


@njit(**JIT)
def _compare(
    embeddings: NDArray[Any],
    offsets: NDArray[np.int64],
    same: np.float32,
    different: np.float32,
    affinities: NDArray[np.uint8],
) -> None:
    channels, nz, ny, nx = embeddings.shape
    here = np.empty((channels, nx), np.float32)
    other = np.empty(nx, np.float32)
    squared = np.empty(nx, np.float32)
    scale = np.float32(255) / (different - same)
    for z in range(nz):
        for y in range(ny):
            for c in range(channels):
                widen_row(embeddings[c, z, y], here[c])
            for o in range(len(offsets)):
                dz, dy, dx = offsets[o]
                if not (0 <= z + dz < nz and 0 <= y + dy < ny) or abs(dx) >= nx:
                    continue
                left, count = max(0, -dx), nx - abs(dx)
                squared[:] = 0
                for c in range(channels):
                    there = here[c]
                    if dz != 0 or dy != 0:
                        widen_row(embeddings[c, z + dz, y + dy], other)
                        there = other
                    first, second = here[c, left : left + count], there[left + dx : left + dx + count]
                    for x in range(count):
                        squared[x] += (first[x] - second[x]) * (first[x] - second[x])
                row = affinities[o, z, y, left : left + count]
                for x in range(count):
                    value = (different - np.sqrt(squared[x])) * scale
                    row[x] = np.uint8(min(np.float32(255), max(np.float32(0), value)) + np.float32(0.5))
