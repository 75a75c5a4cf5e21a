"""How fast the embedding changes from voxel to voxel: low inside objects, high where two of them blend."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import JIT_EXACT, as_bits, widen
from spoco_blocks.kernels.rows import widen_row


def core_mask(embeddings: NDArray[Any], foreground: NDArray[np.bool_], threshold: float) -> NDArray[np.bool_]:
    """Mark the foreground voxels around which the embedding hardly changes.

    Parameters
    ----------
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        The embedding of every voxel.
    foreground : ndarray of bool, shape (z, y, x)
        Where objects are.
    threshold : float
        Bound on the gradient magnitude, in embedding units.

    Returns
    -------
    ndarray of bool, shape (z, y, x)
        True where the voxel is foreground and its gradient is below `threshold`.

    Notes
    -----
    G² is the sum over the three axes of |e(+1) - e(-1)|², with neighbours clamped at the array's edges; an axis of
    length 1 adds nothing, so a 2D image is the case z = 1. One pass, O(n c) time, no memory beyond the mask. Compiled
    without reordering, so that a voxel gets the same gradient wherever it lies in a block.
    """
    mask = np.empty(foreground.shape, np.bool_)
    _core_mask(as_bits(embeddings), foreground, np.float32(threshold) ** 2, mask)
    return mask


def gradient_magnitudes(embeddings: NDArray[Any], foreground: NDArray[np.bool_], every: int = 8) -> NDArray[np.float32]:
    """Give the gradient magnitudes at the foreground voxels of some rows, to take quantiles of.

    Parameters
    ----------
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        The embedding of every voxel.
    foreground : ndarray of bool, shape (z, y, x)
        Where objects are.
    every : int
        Rows with (z + y) divisible by this are looked at; 1 looks at all.

    Returns
    -------
    ndarray of float32, shape (m,)
        G at those voxels, in raster order.

    Notes
    -----
    The gradient is that of `core_mask`. O(n c / every) time; memory 4 bytes per value.
    """
    z, y = np.ogrid[: foreground.shape[0], : foreground.shape[1]]
    rows = (z + y) % every == 0
    values = np.empty(np.count_nonzero(foreground[rows]), np.float32)
    _magnitudes(as_bits(embeddings), foreground, rows, values)
    return values


@njit(**JIT_EXACT)
def _row_gradient(
    embeddings: NDArray[Any], z: int, y: int, padded: NDArray[np.float32], squared: NDArray[np.float32]
) -> None:
    channels, nz, ny, nx = embeddings.shape
    squared[:] = 0
    # Slices instead of x - 1 and x + 1: signed offsets keep the loop from becoming vector code.
    left = padded[:nx]
    right = padded[2:]
    for c in range(channels):
        widen_row(embeddings[c, z, y], padded[1 : nx + 1])
        padded[0] = padded[1]
        padded[nx + 1] = padded[nx]
        before = embeddings[c, max(z - 1, 0), y]
        after = embeddings[c, min(z + 1, nz - 1), y]
        above = embeddings[c, z, max(y - 1, 0)]
        below = embeddings[c, z, min(y + 1, ny - 1)]
        for x in range(nx):
            along_z = widen(after[x]) - widen(before[x])
            along_y = widen(below[x]) - widen(above[x])
            along_x = right[x] - left[x]
            squared[x] += along_z * along_z + along_y * along_y + along_x * along_x


@njit(**JIT_EXACT)
def _core_mask(
    embeddings: NDArray[Any], foreground: NDArray[np.bool_], bound: np.float32, mask: NDArray[np.bool_]
) -> None:
    nz, ny, nx = foreground.shape
    squared = np.empty(nx, np.float32)
    padded = np.empty(nx + 2, np.float32)
    for z in range(nz):
        for y in range(ny):
            inside = foreground[z, y]
            row = mask[z, y]
            if not np.any(inside):
                row[:] = False
                continue
            _row_gradient(embeddings, z, y, padded, squared)
            for x in range(nx):
                row[x] = inside[x] and squared[x] < bound


@njit(**JIT_EXACT)
def _magnitudes(
    embeddings: NDArray[Any], foreground: NDArray[np.bool_], rows: NDArray[np.bool_], values: NDArray[np.float32]
) -> None:
    nz, ny, nx = foreground.shape
    squared = np.empty(nx, np.float32)
    padded = np.empty(nx + 2, np.float32)
    n = 0
    for z in range(nz):
        for y in range(ny):
            if not rows[z, y]:
                continue
            _row_gradient(embeddings, z, y, padded, squared)
            for x in range(nx):
                if foreground[z, y, x]:
                    values[n] = np.sqrt(squared[x])
                    n += 1
