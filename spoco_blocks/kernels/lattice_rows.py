"""What is computed of one row of voxels, or a few, that lie between the rows of a lattice."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.distance import FAR, UNKNOWN
from spoco_blocks.kernels.half import INNER, INNER_EXACT
from spoco_blocks.kernels.rows import widen_row

# In place of a label: the voxels of the lattice around differ.
MIXED = np.uint32(0xFFFFFFFF)


@njit(**INNER_EXACT)
def rows_around(shape: tuple[int, int, int], z: int, y: int, step: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Give where the four rows of the lattice around a row of voxels begin; the same ones where it lies on one."""
    nz, ny, nx = shape
    z0, y0 = z // step[0], y // step[1]
    z1, y1 = min((z + step[0] - 1) // step[0], nz - 1), min((y + step[1] - 1) // step[1], ny - 1)
    return (z0 * ny + y0) * nx, (z0 * ny + y1) * nx, (z1 * ny + y0) * nx, (z1 * ny + y1) * nx


@njit(**INNER_EXACT)
def agreed_labels(
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
def load_strip(
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
def distances_to_means(
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
def round_up(squared: NDArray[np.float32], per_unit: np.float32, units: NDArray[np.uint8]) -> None:
    """Give distances in units, rounded up."""
    for x in range(squared.size):
        units[x] = np.uint8(min(np.sqrt(squared[x]) * per_unit + np.float32(1), np.float32(UNKNOWN)))


@njit(**INNER_EXACT)
def add_up(
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
def place_row(
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
def change_along_x(values: NDArray[np.float32], out: NDArray[np.float32]) -> None:
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
def choose_mixed(
    listed: NDArray[np.int64],
    labels: NDArray[np.uint32],
    values: NDArray[np.float32],
    lattice: NDArray[np.uint32],
    around: tuple[int, int, int, int],
    step: int,
    means: NDArray[np.float32],
    vector: NDArray[np.float32],
    row: NDArray[np.uint32],
    squared: NDArray[np.float32],
) -> None:
    """Give listed voxels between different labels the nearest, and all the squared distance; `FAR` without a label."""
    last = (labels.size - 1) // step
    for x in listed:
        if labels[x] == MIXED:
            for c in range(vector.size):
                vector[c] = values[c, x]
            columns = (x // step, min((x + step - 1) // step, last))
            row[x], squared[x] = _nearest_around(vector, lattice, around, columns, means)
        if row[x] == 0:
            squared[x] = FAR


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
