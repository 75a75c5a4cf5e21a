"""How fast the embedding changes from voxel to voxel: low inside objects, high where two of them blend."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import INNER_EXACT, JIT_EXACT, as_channels, widen
from spoco_blocks.kernels.rows import widen_row

# Voxels that are taken together: enough to read memory in long runs, few enough to stay in the cache.
STRIP_VOXELS = 2048


def core_mask(
    embeddings: NDArray[Any], foreground: NDArray[np.bool_], threshold: float, every: int = 1
) -> NDArray[np.bool_]:
    """Mark the foreground voxels around which the embedding hardly changes.

    Parameters
    ----------
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        The embedding of every voxel.
    foreground : ndarray of bool, shape (z, y, x)
        Where objects are.
    threshold : float
        Bound on the gradient magnitude, in embedding units.
    every : int
        Rows with (z + y) divisible by this are looked at; 1 looks at all.

    Returns
    -------
    ndarray of bool, shape (z, y, x)
        True where the voxel is foreground, its row is looked at and its gradient is below `threshold`.

    Notes
    -----
    G² is the sum over the three axes of |e(+1) - e(-1)|², with neighbours clamped at the array's edges; an axis of
    length 1 adds nothing, so a 2D image is the case z = 1. One pass, O(n c) time, no memory beyond the mask. Compiled
    without reordering, so that a voxel gets the same gradient wherever it lies in a block.
    """
    mask = np.zeros(foreground.shape, np.bool_)
    _core_mask(as_channels(embeddings), np.ascontiguousarray(foreground), np.float32(threshold) ** 2, every, mask)
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
    _magnitudes(as_channels(embeddings), foreground, rows, values)
    return values


@njit(**INNER_EXACT)
def strip_rows(rows: int, size: int) -> int:
    """Give how many rows of `size` voxels make a strip."""
    return min(rows, max(1, STRIP_VOXELS // size))


@njit(**JIT_EXACT)
def strip_buffers(channels: int, rows: int, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give the scratch memory of `strip_gradient` for strips of so many rows of `size` voxels."""
    # A little more than they need: with a power of two, the channels of a voxel would share one place of the cache.
    return np.empty((rows, channels, size + 24), np.float32), np.empty((rows, size), np.float32)


@njit(**INNER_EXACT)
def strip_gradient(
    flat: NDArray[Any],
    shape: tuple[int, int, int],
    z: int,
    rows: tuple[int, int, int],
    loaded: NDArray[np.float32],
    squared: NDArray[np.float32],
) -> None:
    """Give the squared gradients of a few rows, and their embeddings as float32.

    Parameters
    ----------
    flat : ndarray of uint16 (float16 bits) or float32, shape (c, z y x)
        The embedding of every voxel, as `as_bits` gives it.
    shape : tuple of int
        z, y, x.
    z : int
        The plane.
    rows : tuple of int
        The rows: first, end and step.
    loaded : ndarray of float32, shape (at least as many as rows, c, at least x + 2)
        The embeddings go here, from 1 on; those at the ends are repeated.
    squared : ndarray of float32, shape (at least as many as rows, x)
        The squared gradients go here.

    Notes
    -----
    Several rows at once and channel by channel, so that memory is read in long runs.
    """
    nz, ny, nx = shape
    plane = ny * nx
    squared[:] = 0
    for c in range(len(flat)):
        channel = flat[c]
        for r, y in enumerate(range(rows[0], rows[1], rows[2])):
            base = (z * ny + y) * nx
            before, after = base - plane * (z > 0), base + plane * (z < nz - 1)
            above, below = base - nx * (y > 0), base + nx * (y < ny - 1)
            here = loaded[r, c]
            widen_row(channel[base : base + nx], here[1 : nx + 1])
            here[0] = here[1]
            here[nx + 1] = here[nx]
            _add_squares(
                here[:nx],
                here[2 : nx + 2],
                channel[before : before + nx],
                channel[after : after + nx],
                channel[above : above + nx],
                channel[below : below + nx],
                squared[r],
            )


@njit(**INNER_EXACT)
def _add_squares(
    left: NDArray[np.float32],
    right: NDArray[np.float32],
    before: NDArray[Any],
    after: NDArray[Any],
    above: NDArray[Any],
    below: NDArray[Any],
    squared: NDArray[np.float32],
) -> None:
    # Slices instead of i - 1 and i + 1: signed offsets keep the loop from becoming vector code.
    for i in range(squared.size):
        along_z = widen(after[i]) - widen(before[i])
        along_y = widen(below[i]) - widen(above[i])
        along_x = right[i] - left[i]
        squared[i] += along_z * along_z + along_y * along_y + along_x * along_x


@njit(**INNER_EXACT)
def squared_gradient_at(
    flat: NDArray[Any], shape: tuple[int, int, int], z: int, y: int, x: int, bound: np.float32
) -> np.float32:
    """Give the squared gradient at one voxel of what `as_channels` gives; `bound` or more once it is that much."""
    nz, ny, nx = shape
    place = (z * ny + y) * nx + x
    before, after = place - ny * nx * (z > 0), place + ny * nx * (z < nz - 1)
    above, below = place - nx * (y > 0), place + nx * (y < ny - 1)
    left, right = place - (x > 0), place + (x < nx - 1)
    total = np.float32(0)
    for c in range(len(flat)):
        along_z = widen(flat[c, after]) - widen(flat[c, before])
        along_y = widen(flat[c, below]) - widen(flat[c, above])
        along_x = widen(flat[c, right]) - widen(flat[c, left])
        total += along_z * along_z + along_y * along_y + along_x * along_x
        if total >= bound:
            break
    return total


@njit(**JIT_EXACT)
def _core_mask(
    flat: NDArray[Any], foreground: NDArray[np.bool_], bound: np.float32, every: int, mask: NDArray[np.bool_]
) -> None:
    nz, ny, nx = foreground.shape
    loaded, squared = strip_buffers(len(flat), 1, nx)
    for z in range(nz):
        for y in range(-z % every, ny, every):
            if np.any(foreground[z, y]):
                strip_gradient(flat, foreground.shape, z, (y, y + 1, 1), loaded, squared)
                for x in range(nx):
                    mask[z, y, x] = foreground[z, y, x] and squared[0, x] < bound


@njit(**JIT_EXACT)
def _magnitudes(
    flat: NDArray[Any], foreground: NDArray[np.bool_], rows: NDArray[np.bool_], values: NDArray[np.float32]
) -> None:
    nz, ny, nx = foreground.shape
    loaded, squared = strip_buffers(len(flat), 1, nx)
    n = 0
    for z in range(nz):
        for y in range(ny):
            if not rows[z, y] or not np.any(foreground[z, y]):
                continue
            strip_gradient(flat, foreground.shape, z, (y, y + 1, 1), loaded, squared)
            for x in range(nx):
                if foreground[z, y, x]:
                    values[n] = np.sqrt(squared[0, x])
                    n += 1
