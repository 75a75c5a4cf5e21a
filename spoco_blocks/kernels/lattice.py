"""From labels of every second voxel to labels of all: most voxels lie between voxels of one object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.distance import DistanceBounds
from spoco_blocks.kernels.gradient import squared_gradient_at, strip_buffers, strip_rows
from spoco_blocks.kernels.growable import with_room
from spoco_blocks.kernels.half import JIT_EXACT, as_channels
from spoco_blocks.kernels.lattice_rows import (
    add_up,
    agreed_labels,
    change_along_x,
    choose_mixed,
    distances_to_means,
    load_strip,
    place_row,
    round_up,
    rows_around,
)

# Rows with (z + y) divisible by this are added up for the means.
SUMMED = 4
# Units of `DistanceBounds` in the distance that is looked at again: borders of objects may be several times as far.
UNITS = 32


@dataclass(frozen=True, eq=False)
class Spread:
    """Labels of all voxels.

    Attributes
    ----------
    padded : ndarray of uint32, shape (z + 2, y + 2, x + 2)
        The labels, with a border of zeros.
    empty : ndarray of int64, shape (m,)
        Flat indices of the foreground voxels without a label, rising.
    odd : ndarray of int64, shape (o,)
        Flat indices of the foreground voxels that are far from the mean of their label, or have none, although the
        embedding hardly changes there: of objects that the lattice missed.
    means : ndarray of float32, shape (k + 1, c)
        Mean embedding of each label where all voxels around have it.
    counts : ndarray of int64, shape (k + 1,)
        How many voxels that mean is of.
    bounds : DistanceBounds
        How far voxels are at most from the means that were given.
    measured : ndarray of float32, shape (k + 1, c)
        The means that were given.
    """

    padded: NDArray[np.uint32]
    empty: NDArray[np.int64]
    odd: NDArray[np.int64]
    means: NDArray[np.float32]
    counts: NDArray[np.int64]
    bounds: DistanceBounds
    measured: NDArray[np.float32]


def spread_labels(
    lattice: NDArray[np.uint32],
    embeddings: NDArray[Any],
    foreground: NDArray[np.bool_],
    means: NDArray[np.floating[Any]],
    step: tuple[int, int, int],
    max_distance: float,
    threshold: float,
) -> Spread:
    """Give every foreground voxel the label, of those of the lattice's voxels around it, whose mean is nearest.

    Parameters
    ----------
    lattice : ndarray of uint32, shape (ceil(z / step), ceil(y / step), ceil(x / step))
        Labels of the lattice: 0, or 1 to k.
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        The embedding of every voxel.
    foreground : ndarray of bool, shape (z, y, x)
        Where objects are.
    means : ndarray of float, shape (k + 1, c)
        Mean embedding of each label; row 0 is not used.
    step : tuple of int
        Distance of the lattice's voxels along each axis, 1 or 2.
    max_distance : float
        Voxels farther than this from their label's mean are looked at again.
    threshold : float
        Bound on the gradient magnitude of voxels that are `odd`.

    Returns
    -------
    Spread
        Labels, what has none, what has a doubtful one, and better means.

    Notes
    -----
    A voxel of the lattice has one voxel around it, itself; others have two, four or eight. Where these agree, the
    distance to one mean is all there is to compute, and that by rows. One pass, O(n c) time. Memory: 4 bytes per voxel,
    and 16 for each voxel that is listed.
    """
    shape = foreground.shape
    padded = np.zeros([extent + 2 for extent in shape], np.uint32)
    units = np.empty(padded.shape, np.uint8)
    core_means = np.ascontiguousarray(means, np.float32)
    counts, sums = np.zeros(len(means), np.int64), np.zeros(means.shape)
    limits = (np.float32(float(max_distance) ** 2), np.float32(threshold) ** 2)
    empty, odd = _spread(
        np.ascontiguousarray(lattice),
        as_channels(embeddings),
        np.ascontiguousarray(foreground),
        core_means,
        step,
        limits,
        padded,
        units,
        counts,
        sums,
    )
    inner = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], core_means)
    bounds = DistanceBounds(units, max_distance / UNITS, np.zeros(len(means)))
    return Spread(padded, empty, odd, inner.astype(np.float32), counts, bounds, core_means)


@njit(**JIT_EXACT)
def _spread(
    lattice: NDArray[np.uint32],
    flat: NDArray[Any],
    foreground: NDArray[np.bool_],
    means: NDArray[np.float32],
    step: tuple[int, int, int],
    limits: Any,
    padded: NDArray[np.uint32],
    units: NDArray[np.uint8],
    counts: NDArray[np.int64],
    sums: NDArray[np.float64],
) -> Any:
    nz, ny, nx = foreground.shape
    on_lattice = lattice.reshape(-1)
    strip = strip_rows(ny, nx)
    loaded, _ = strip_buffers(len(flat), strip, nx)
    vector = np.empty(len(flat), np.float32)
    agreed, labels = np.empty(lattice.shape[2], np.uint32), np.empty(nx, np.uint32)
    squared, along_x, listed = np.empty(nx, np.float32), np.empty(nx, np.float32), np.empty(nx + 1, np.int64)
    empty, odd = np.empty(4096 + nx, np.int64), np.empty(4096 + nx, np.int64)
    empties = odds = 0
    per_unit = np.float32(UNITS) / np.sqrt(limits[0])
    for z in range(nz):
        for y in range(ny):
            if y % strip == 0:
                load_strip(flat, foreground, z, y, min(y + strip, ny), loaded)
            inside, values = foreground[z, y], loaded[y % strip]
            if not np.any(inside):
                continue
            base = (z * ny + y) * nx
            around = rows_around(lattice.shape, z, y, step)
            agreed_labels(on_lattice, around, step[2], agreed, labels)
            distances_to_means(values, labels, means, squared)
            row = padded[z + 1, y + 1, 1 : nx + 1]
            change_along_x(values, along_x)
            count = place_row(labels, inside, squared, limits[0], row, listed)
            empty, odd = with_room(empty, empties + nx), with_room(odd, odds + nx)
            choose_mixed(listed[:count], labels, values, on_lattice, around, step[2], means, vector, row, squared)
            for x in listed[:count]:
                empty[empties] = odd[odds] = base + x
                empties += row[x] == 0
                if squared[x] > limits[0] and along_x[x] < limits[1]:
                    odds += squared_gradient_at(flat, foreground.shape, z, y, x, limits[1]) < limits[1]
            round_up(squared, per_unit, units[z + 1, y + 1, 1 : nx + 1])
            if (z + y) % SUMMED == 0:
                add_up(values, labels, inside, counts, sums)
    return empty[:empties].copy(), odd[:odds].copy()
