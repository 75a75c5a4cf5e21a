"""What is known of each labelled region: size, embedding, place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import INNER, INNER_EXACT, JIT_EXACT, as_channels
from spoco_blocks.kernels.rows import widen_row

# Voxels that are taken together: a channel of them stays in the innermost cache.
STRIP_VOXELS = 2048

Statistics = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def region_statistics(labels: NDArray[np.uint32], embeddings: NDArray[Any], count: int) -> Statistics:
    """Sum up every labelled region.

    Parameters
    ----------
    labels : ndarray of uint32, shape (z, y, x)
        0, or 1 to `count`.
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        The embedding of every voxel.
    count : int
        The largest label, k.

    Returns
    -------
    voxels : ndarray of int64, shape (k + 1,)
        Voxels of each region; those of label 0 are not counted.
    sums : ndarray of float64, shape (k + 1, c)
        Sums of their embeddings.
    box_start, box_stop : ndarray of int64, shape (k + 1, 3)
        Half-open bounding boxes; 0, 0, 0 for a label without voxels.
    position_sums : ndarray of int64, shape (k + 1, 3)
        Sums of the voxels' z, y, x.

    Notes
    -----
    One pass by runs of equal label, O(n c) time. Sums are float64 from the first addition: for float16 input they are
    exact as long as k's voxels times the range of values needs fewer than 53 bits, so that the sums of a region's parts
    add up to those of the whole.
    """
    voxels = np.zeros(count + 1, np.int64)
    sums = np.zeros((count + 1, len(embeddings)), np.float64)
    box_start = np.full((count + 1, 3), np.iinfo(np.int64).max)
    box_stop = np.zeros((count + 1, 3), np.int64)
    position_sums = np.zeros((count + 1, 3), np.int64)
    _statistics(labels, as_channels(embeddings), voxels, sums, box_start, box_stop, position_sums)
    box_start[voxels == 0] = 0
    return voxels, sums, box_start, box_stop, position_sums


@njit(**JIT_EXACT)
def _statistics(
    labels: NDArray[np.uint32],
    flat: NDArray[Any],
    voxels: NDArray[np.int64],
    sums: NDArray[np.float64],
    box_start: NDArray[np.int64],
    box_stop: NDArray[np.int64],
    position_sums: NDArray[np.int64],
) -> None:
    nz, ny, nx = labels.shape
    rows = min(ny, max(1, STRIP_VOXELS // nx))
    line = np.empty(rows * nx, np.float32)
    runs = np.empty((rows * nx, 3), np.int64)
    for z in range(nz):
        for first in range(0, ny, rows):
            count, last = 0, min(first + rows, ny)
            for y in range(first, last):
                x = 0
                while x < nx:
                    label = np.int64(labels[z, y, x])
                    start = x
                    while x < nx and labels[z, y, x] == label:
                        x += 1
                    if label == 0:
                        continue
                    runs[count, 0] = label
                    runs[count, 1], runs[count, 2] = (y - first) * nx + start, (y - first) * nx + x
                    count += 1
                    length = x - start
                    voxels[label] += length
                    position_sums[label, 0] += z * length
                    position_sums[label, 1] += y * length
                    position_sums[label, 2] += (start + x - 1) * length // 2
                    _widen_box(box_start, box_stop, label, z, y, start, x)
            base, size = (z * ny + first) * nx, (last - first) * nx
            for c in range(len(flat) if count > 0 else 0):
                widen_row(flat[c, base : base + size], line[:size])
                _add_runs(line, runs[:count], sums[:, c])


@njit(**INNER)
def _add_runs(line: NDArray[np.float32], runs: NDArray[np.int64], sums: NDArray[np.float64]) -> None:
    for j in range(len(runs)):
        total, run = 0.0, line[runs[j, 1] : runs[j, 2]]
        for i in range(run.size):
            total += run[i]
        sums[runs[j, 0]] += total


@njit(**INNER_EXACT)
def _widen_box(
    box_start: NDArray[np.int64],
    box_stop: NDArray[np.int64],
    label: int,
    z: int,
    y: int,
    x_start: int,
    x_stop: int,
) -> None:
    box_start[label, 0] = min(box_start[label, 0], z)
    box_start[label, 1] = min(box_start[label, 1], y)
    box_start[label, 2] = min(box_start[label, 2], x_start)
    box_stop[label, 0] = max(box_stop[label, 0], z + 1)
    box_stop[label, 1] = max(box_stop[label, 1], y + 1)
    box_stop[label, 2] = max(box_stop[label, 2], x_stop)
