"""From labels of every second voxel to labels of all: most voxels lie between voxels of one object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.borders import UNKNOWN, DistanceBounds
from spoco_blocks.kernels.distance import FAR
from spoco_blocks.kernels.gradient import squared_gradient_at, strip_buffers, strip_rows
from spoco_blocks.kernels.growable import with_room
from spoco_blocks.kernels.half import INNER, INNER_EXACT, JIT_EXACT, as_channels
from spoco_blocks.kernels.rows import widen_row

MIXED = np.uint32(0xFFFFFFFF)
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
                _load(flat, foreground, z, y, min(y + strip, ny), loaded)
            inside, values = foreground[z, y], loaded[y % strip]
            if not np.any(inside):
                continue
            base = (z * ny + y) * nx
            around = _rows_around(lattice.shape, z, y, step)
            _agree(on_lattice, around, step[2], agreed, labels)
            _measure(values, labels, means, squared)
            row = padded[z + 1, y + 1, 1 : nx + 1]
            _change_along_x(values, along_x)
            count = _place(labels, inside, squared, limits[0], row, listed)
            empty, odd = with_room(empty, empties + nx), with_room(odd, odds + nx)
            for j in range(count):
                x = listed[j]
                distance = squared[x]
                if labels[x] == MIXED:
                    for c in range(len(flat)):
                        vector[c] = values[c, x]
                    columns = (x // step[2], min((x + step[2] - 1) // step[2], agreed.size - 1))
                    row[x], distance = _nearest_around(vector, on_lattice, around, columns, means)
                    squared[x] = distance
                if row[x] == 0:
                    squared[x] = FAR
                empty[empties] = odd[odds] = base + x
                empties += row[x] == 0
                if (row[x] == 0 or distance > limits[0]) and along_x[x] < limits[1]:
                    odds += squared_gradient_at(flat, foreground.shape, z, y, x, limits[1]) < limits[1]
            _round_up(squared, per_unit, units[z + 1, y + 1, 1 : nx + 1])
            if (z + y) % SUMMED == 0:
                _sum(values, labels, inside, counts, sums)
    return empty[:empties].copy(), odd[:odds].copy()


@njit(**INNER_EXACT)
def _rows_around(shape: tuple[int, int, int], z: int, y: int, step: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Give where the four rows of the lattice around a row of voxels begin; the same ones where it lies on one."""
    nz, ny, nx = shape
    z0, y0 = z // step[0], y // step[1]
    z1, y1 = min((z + step[0] - 1) // step[0], nz - 1), min((y + step[1] - 1) // step[1], ny - 1)
    return (z0 * ny + y0) * nx, (z0 * ny + y1) * nx, (z1 * ny + y0) * nx, (z1 * ny + y1) * nx


@njit(**INNER_EXACT)
def _agree(
    flat: NDArray[np.uint32],
    around: tuple[int, int, int, int],
    step: int,
    agreed: NDArray[np.uint32],
    labels: NDArray[np.uint32],
) -> None:
    """Give each voxel of a row the label that all voxels of the lattice around it have, or MIXED."""
    n = agreed.size
    first, second = flat[around[0] : around[0] + n], flat[around[1] : around[1] + n]
    third, fourth = flat[around[2] : around[2] + n], flat[around[3] : around[3] + n]
    for i in range(n):
        same = (first[i] == second[i]) & (first[i] == third[i]) & (first[i] == fourth[i])
        agreed[i] = first[i] if same else MIXED
    if step == 1:
        for i in range(n):
            labels[i] = agreed[i]
        return
    for i in range(n - 1):
        labels[2 * i] = agreed[i]
        labels[2 * i + 1] = agreed[i] if agreed[i] == agreed[i + 1] else MIXED
    labels[2 * n - 2 :] = agreed[n - 1]


@njit(**INNER_EXACT)
def _load(
    flat: NDArray[Any], foreground: NDArray[np.bool_], z: int, start: int, stop: int, loaded: NDArray[np.float32]
) -> None:
    """Convert a strip, channel by channel, so that memory is read in long runs."""
    _, ny, nx = foreground.shape
    if not np.any(foreground[z, start:stop]):
        return
    for c in range(len(flat)):
        for y in range(start, stop):
            base = (z * ny + y) * nx
            widen_row(flat[c, base : base + nx], loaded[y - start, c, :nx])


@njit(**INNER)
def _measure(
    values: NDArray[np.float32], labels: NDArray[np.uint32], means: NDArray[np.float32], squared: NDArray[np.float32]
) -> None:
    """Give the squared distance of each voxel to its label's mean, by runs of one label."""
    squared[:] = 0
    x = 0
    while x < labels.size:
        label, start = labels[x], x
        while x < labels.size and labels[x] == label:
            x += 1
        if label == 0 or label == MIXED:  # noqa: PLR1714
            continue
        out = squared[start:x]
        for c in range(len(values)):
            line, mean = values[c, start:x], means[label, c]
            for i in range(out.size):
                difference = line[i] - mean
                out[i] += difference * difference


@njit(**INNER_EXACT)
def _round_up(squared: NDArray[np.float32], per_unit: np.float32, units: NDArray[np.uint8]) -> None:
    """Give distances in units, rounded up."""
    for x in range(squared.size):
        units[x] = np.uint8(min(np.sqrt(squared[x]) * per_unit + np.float32(1), np.float32(UNKNOWN)))


@njit(**INNER_EXACT)
def _sum(
    values: NDArray[np.float32],
    labels: NDArray[np.uint32],
    inside: NDArray[np.bool_],
    counts: NDArray[np.int64],
    sums: NDArray[np.float64],
) -> None:
    """Add up the voxels whose label is agreed upon."""
    for x in range(labels.size):
        label = labels[x]
        if label != 0 and label != MIXED and inside[x]:  # noqa: PLR1714
            counts[label] += 1
            for c in range(len(values)):
                sums[label, c] += values[c, x]


@njit(**INNER_EXACT)
def _place(
    labels: NDArray[np.uint32],
    inside: NDArray[np.bool_],
    squared: NDArray[np.float32],
    bound: np.float32,
    row: NDArray[np.uint32],
    listed: NDArray[np.int64],
) -> int:
    """Write the labels that are agreed upon, and list the voxels that have to be looked at."""
    count = 0
    for x in range(labels.size):
        label = labels[x]
        row[x] = label if inside[x] and label != MIXED else np.uint32(0)
        listed[count] = x
        count += inside[x] & ((label == 0) | (label == MIXED) | (squared[x] > bound))
    return count


@njit(**INNER)
def _change_along_x(values: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Give what the axis that is at hand adds to squared gradients: at most borders enough to look at no other."""
    n = out.size
    out[:] = 0
    for c in range(len(values)):
        left, right = values[c, : n - 2], values[c, 2:n]
        inner = out[1 : n - 1]
        for i in range(inner.size):
            difference = right[i] - left[i]
            inner[i] += difference * difference


@njit(**INNER)
def _nearest_around(
    vector: NDArray[np.float32],
    lattice: NDArray[np.uint32],
    around: tuple[int, int, int, int],
    columns: tuple[int, int],
    means: NDArray[np.float32],
) -> tuple[np.uint32, np.float32]:
    """Give the label around a voxel whose mean is nearest, the smallest of equals, and its squared distance."""
    choice, best, last = np.uint32(0), FAR, np.uint32(0)
    for column in columns:
        for start in around:
            label = lattice[start + column]
            if label == 0 or label == last or label == choice:  # noqa: PLR1714, SIM109
                continue
            last = label
            other = np.float32(0)
            for c in range(vector.size):
                difference = vector[c] - means[label, c]
                other += difference * difference
            if other < best or (other == best and label < choice):
                choice, best = label, other
    return choice, best
