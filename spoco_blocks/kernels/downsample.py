"""The next level of a pyramid: means for images, the most frequent id for labels."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from spoco_blocks.errors import GridError
from spoco_blocks.grid import Triple
from spoco_blocks.kernels.half import JIT_EXACT


@numba.njit(**JIT_EXACT)
def _mean(array: NDArray[Any], out: NDArray[Any], fz: int, fy: int, fx: int, rounded: bool) -> None:
    nz, ny, nx = array.shape
    for z in range(out.shape[0]):
        z0, z1 = z * fz, min(z * fz + fz, nz)
        for y in range(out.shape[1]):
            y0, y1 = y * fy, min(y * fy + fy, ny)
            for x in range(out.shape[2]):
                x0, x1 = x * fx, min(x * fx + fx, nx)
                total = 0.0
                for k in range(z0, z1):
                    for j in range(y0, y1):
                        for i in range(x0, x1):
                            total += array[k, j, i]
                mean = total / ((z1 - z0) * (y1 - y0) * (x1 - x0))
                out[z, y, x] = np.rint(mean) if rounded else mean


@numba.njit(**JIT_EXACT)
def _mode(labels: NDArray[Any], out: NDArray[Any], fz: int, fy: int, fx: int) -> None:
    nz, ny, nx = labels.shape
    window = np.empty(fz * fy * fx, labels.dtype)
    for z in range(out.shape[0]):
        for y in range(out.shape[1]):
            for x in range(out.shape[2]):
                n = 0
                for k in range(z * fz, min(z * fz + fz, nz)):
                    for j in range(y * fy, min(y * fy + fy, ny)):
                        for i in range(x * fx, min(x * fx + fx, nx)):
                            # insertion keeps the window sorted; most hold one id and cost one comparison a voxel
                            value = labels[k, j, i]
                            place = n
                            while place > 0 and window[place - 1] > value:
                                window[place] = window[place - 1]
                                place -= 1
                            window[place] = value
                            n += 1
                best, best_count, start = window[0], 0, 0
                for end in range(1, n + 1):
                    if end == n or window[end] != window[start]:
                        count = end - start
                        if count > best_count or (count == best_count and best == 0):
                            best, best_count = window[start], count
                        start = end
                out[z, y, x] = best


def _coarse_shape(array: NDArray[Any], factor: Triple) -> Triple:
    if array.ndim != 3:
        raise GridError(f"downsampling needs an array (z, y, x); got {array.ndim} axes of shape {array.shape}.")
    if len(factor) != 3 or min(factor) < 1:
        raise GridError(f"downsampling needs three factors of at least 1, along z, y, x; got {factor}.")
    z, y, x = (-(-s // f) for s, f in zip(array.shape, factor, strict=True))
    return z, y, x


def downsample_mean(array: NDArray[Any], factor: Triple) -> NDArray[Any]:
    """Average windows of ``factor`` voxels.

    Windows that stick out at the far edge are averaged over the voxels that are there. Integers are rounded to the
    nearest, halves to even; sums run in float64, so that 64-bit integers above 2**53 lose their last bits.

    Parameters
    ----------
    array : ndarray of int or float, shape (z, y, x) or (c, z, y, x)
        Image; channels stay apart.
    factor : tuple of int
        Voxels per window along z, y, x.

    Returns
    -------
    ndarray, shape (ceil(z / fz), ceil(y / fy), ceil(x / fx)) or (c, …)
        Coarser image of the same data type.

    Raises
    ------
    GridError
        When the array has neither three axes nor four, or a factor is below 1.
    """
    if array.ndim == 4:
        return np.stack([downsample_mean(channel, factor) for channel in array])
    shape = _coarse_shape(array, factor)
    is_half = array.dtype == np.float16
    out = np.empty(shape, np.float32 if is_half else array.dtype)
    _mean(array.astype(np.float32) if is_half else array, out, *factor, bool(array.dtype.kind in "iu"))
    return out.astype(array.dtype, copy=False)


def downsample_mode(labels: NDArray[Any], factor: Triple) -> NDArray[Any]:
    """Give each window of ``factor`` voxels its most frequent id.

    Of ids that are equally frequent one that is not 0 wins, then the smaller one: thin objects survive, and the result
    does not depend on the order of the voxels. Windows at the far edge hold the voxels that are there.

    Parameters
    ----------
    labels : ndarray of unsigned int, shape (z, y, x)
        Ids, 0 for background.
    factor : tuple of int
        Voxels per window along z, y, x.

    Returns
    -------
    ndarray of unsigned int, shape (ceil(z / fz), ceil(y / fy), ceil(x / fx))
        Coarser ids of the same data type.

    Raises
    ------
    GridError
        When the array is not three-dimensional, its ids are not unsigned integers, or a factor is below 1.
    """
    shape = _coarse_shape(labels, factor)
    if labels.dtype.kind != "u":
        raise GridError(f"labels to downsample must be unsigned integers; got {labels.dtype}.")
    out = np.empty(shape, labels.dtype)
    _mode(labels, out, *factor)
    return out
