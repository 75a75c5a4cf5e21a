"""Cores of objects: connected voxels of low gradient that share their nearest mode, in one pass over the embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.distance import FAR, squared_distance
from spoco_blocks.kernels.gradient import strip_buffers, strip_gradient, strip_rows
from spoco_blocks.kernels.half import INNER_EXACT, JIT_EXACT, as_channels
from spoco_blocks.kernels.mode_seeking import mode_table
from spoco_blocks.kernels.nearest import WITHIN, find_stray, keep_stray, nearer_hint, nearest_mode, no_strays
from spoco_blocks.kernels.union_find import find, union

# Square of how far two voxels of one object without a mode may be, by the reach: both are noisy, where a mode is not.
STRAY = np.float32(2.25)

Cores = tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.float64]]


def label_cores(
    embeddings: NDArray[Any],
    foreground: NDArray[np.bool_],
    threshold: float,
    modes: NDArray[np.float32],
    max_distance: float,
    min_voxels: int = 1,
    step: tuple[int, int, int] = (1, 1, 1),
) -> Cores:
    """Label the 6-connected components of core voxels with the same nearest mode, on a lattice of voxels.

    Parameters
    ----------
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        The embedding of every voxel.
    foreground : ndarray of bool, shape (z, y, x)
        Where objects are.
    threshold : float
        Bound on the gradient magnitude of core voxels, in embedding units.
    modes : ndarray of float32, shape (k, c)
        The modes.
    max_distance : float
        Core voxels farther than this from every mode have none; those are connected that are alike (see Notes).
    min_voxels : int
        Components of fewer voxels become 0.
    step : tuple of int
        Along each axis, every how many voxels one is looked at, from the first on.

    Returns
    -------
    labels : ndarray of uint32, shape (ceil(z / step), ceil(y / step), ceil(x / step))
        0, or 1 to n in the raster order of the components' first voxels.
    sizes : ndarray of int64, shape (n + 1,)
        Voxels of each component; ``sizes[0]`` is 0.
    sums : ndarray of float64, shape (n + 1, c)
        Sums of their embeddings.

    Notes
    -----
    A voxel without a mode takes the name of the first of the last eight such voxels that is no farther than 1.5
    `max_distance` from it, or gets a new one; so two objects that no mode was found of do not run into each other.

    Where all voxels have a mode and with a step of 1 the same as `core_mask`, `nearest_modes`, `equal_components` and
    `region_statistics` one after the other, but each embedding is converted once, and sums are folded along the
    union-find forest. Gradients are those between direct neighbours whatever the step. O(n c / step) time where objects
    are wider than a voxel. Memory: 4 bytes per voxel of the lattice, and 8 c + 24 bytes for each component of the
    raster pass.
    """
    modes = np.ascontiguousarray(modes, np.float32).reshape(-1, len(embeddings))
    table = mode_table(modes)
    labels = np.zeros([-(-extent // s) for extent, s in zip(foreground.shape, step, strict=True)], np.uint32)
    limits = (np.float32(threshold) ** 2, np.float32(float(max_distance) ** 2))
    found = _components(as_channels(embeddings), np.ascontiguousarray(foreground), limits, table, step, labels)
    renumber, sizes, sums = _fold(*found, max(1, min_voxels))
    _replace(labels.reshape(-1), renumber)
    return labels, sizes, sums


@njit(**JIT_EXACT)
def _components(
    flat: NDArray[Any],
    foreground: NDArray[np.bool_],
    limits: Any,
    table: Any,
    step: tuple[int, int, int],
    labels: NDArray[np.uint32],
) -> Any:
    nz, ny, nx = labels.shape
    out = labels.reshape(-1)
    strip = strip_rows(ny, foreground.shape[2])
    loaded, squared = strip_buffers(len(flat), strip, foreground.shape[2])
    vectors = np.empty((nx, len(flat)), np.float32)
    places = np.empty((nx + 1, 2), np.int64)
    # The values of two planes, with a row and a column of zeros in front.
    values = np.zeros((2, (ny + 1) * (nx + 1)), np.int32)
    forest = np.zeros(4096, np.int64), np.zeros(4096, np.int64), np.zeros((4096, len(flat)), np.float64)
    strays = no_strays(len(flat))
    used = 1
    for z in range(nz):
        here, before = values[z % 2], values[(z + 1) % 2]
        here[:] = 0
        for y in range(ny):
            r = y % strip
            if r == 0:
                rows = (y * step[1], min((y + strip) * step[1], foreground.shape[1]), step[1])
                if np.any(foreground[z * step[0], rows[0] : rows[1]]):
                    strip_gradient(flat, foreground.shape, z * step[0], rows, loaded, squared)
            inside = foreground[z * step[0], y * step[1]]
            if not np.any(inside):
                continue
            cell = (y + 1) * (nx + 1) + 1
            count = _take(loaded[r], inside, squared[r], limits[0], step[2], cell, places, vectors)
            if used + count > len(forest[0]):
                forest = _doubled(forest, count)
            chosen = places[:count]
            _assign(vectors, chosen, nx + 1, table, limits[1], here, before, strays)
            base = (z * ny + y) * nx
            used = _link(chosen, base, labels.shape, here, before, out, forest[0], used)
            _sum(chosen, base, out, vectors, forest[1], forest[2])
    return forest[0][:used], forest[1][:used], forest[2][:used]


@njit(**JIT_EXACT)
def _doubled(forest: Any, room: int) -> Any:
    parents, sizes, sums = forest
    n = len(parents)
    wide = (
        np.zeros(2 * n + room, np.int64),
        np.zeros(2 * n + room, np.int64),
        np.zeros((2 * n + room, sums.shape[1]), np.float64),
    )
    wide[0][:n] = parents
    wide[1][:n] = sizes
    wide[2][:n] = sums
    return wide


@njit(**INNER_EXACT)
def _take(
    loaded: NDArray[np.float32],
    inside: NDArray[np.bool_],
    squared: NDArray[np.float32],
    bound: np.float32,
    step: int,
    cell: int,
    places: NDArray[np.int64],
    vectors: NDArray[np.float32],
) -> int:
    """Collect the core voxels of a row, the channels of each side by side."""
    count = 0
    for i in range((inside.size + step - 1) // step):
        places[count, 0] = i
        places[count, 1] = cell + i
        count += inside[i * step] and squared[i * step] < bound
    for j in range(count):
        for c in range(len(loaded)):
            vectors[j, c] = loaded[c, places[j, 0] * step + 1]
    return count


@njit(**INNER_EXACT)
def _assign(
    vectors: NDArray[np.float32],
    places: NDArray[np.int64],
    width: int,
    table: Any,
    bound: np.float32,
    here: NDArray[np.int32],
    before: NDArray[np.int32],
    strays: Any,
) -> None:
    """Write 1 + the nearest mode of each voxel; k + 1 and more where none is near, by which embeddings are alike."""
    modes, _, gaps = table[:3]
    k = len(modes)
    mode = 0
    for j in range(len(places)):
        i = places[j, 1]
        squared = squared_distance(vectors[j], modes[mode]) if k > 0 else FAR
        if squared > bound:
            # Another object has begun; the rows beside this one know which.
            mode, squared = nearer_hint(vectors[j], mode, squared, here[i - width], before[i], modes)
        name = 0
        if squared > bound:
            name, alone = find_stray(vectors[j], STRAY * bound, strays)
            if name != 0 and alone:
                here[i] = k + name
                continue
        if k > 1 and gaps[mode, 0] <= WITHIN * squared:
            mode, squared = nearest_mode(vectors[j], mode, here[i - width], before[i], table)
        if squared <= bound:
            here[i] = mode + 1
        else:
            here[i] = k + (name if name != 0 else keep_stray(vectors[j], squared, bound, strays))


@njit(**INNER_EXACT)
def _link(
    places: NDArray[np.int64],
    base: int,
    shape: tuple[int, int, int],
    here: NDArray[np.int32],
    before: NDArray[np.int32],
    labels: NDArray[np.uint32],
    parents: NDArray[np.int64],
    used: int,
) -> int:
    """Label voxels by the components of their neighbours of equal value: to the left, above and before."""
    _, ny, nx = shape
    width = nx + 1
    for j in range(len(places)):
        i = places[j, 1]
        own = base + places[j, 0]
        value = here[i]
        same = here[i - 1] == value
        label = np.int64(labels[own - 1]) if same else np.int64(0)
        if here[i - width] == value and not (same and here[i - width - 1] == value):
            other = np.int64(labels[own - nx])
            label = union(parents, label, other) if label else other
        if before[i] == value and not (same and before[i - 1] == value):
            other = np.int64(labels[own - ny * nx])
            label = union(parents, label, other) if label else other
        if label == 0:
            label = np.int64(used)
            parents[used] = used
            used += 1
        labels[own] = label
    return used


@njit(**INNER_EXACT)
def _sum(
    places: NDArray[np.int64],
    base: int,
    labels: NDArray[np.uint32],
    vectors: NDArray[np.float32],
    sizes: NDArray[np.int64],
    sums: NDArray[np.float64],
) -> None:
    for j in range(len(places)):
        label = labels[base + places[j, 0]]
        sizes[label] += 1
        for c in range(vectors.shape[1]):
            sums[label, c] += vectors[j, c]


@njit(**JIT_EXACT)
def _fold(parents: NDArray[np.int64], sizes: NDArray[np.int64], sums: NDArray[np.float64], min_voxels: int) -> Any:
    """Number the roots that are large enough, and give each root what its members have."""
    n = len(parents)
    for i in range(1, n):
        root = find(parents, i)
        if root != i:
            sizes[root] += sizes[i]
            sums[root] += sums[i]
    count = 0
    for i in range(1, n):
        if parents[i] == i and sizes[i] >= min_voxels:
            count += 1
    table = np.zeros(n, np.uint32)
    voxels = np.zeros(count + 1, np.int64)
    totals = np.zeros((count + 1, sums.shape[1]), np.float64)
    count = 0
    for i in range(1, n):
        # A root precedes its members.
        if parents[i] != i:
            table[i] = table[find(parents, i)]
        elif sizes[i] >= min_voxels:
            count += 1
            table[i] = count
            voxels[count] = sizes[i]
            totals[count] = sums[i]
    return table, voxels, totals


@njit(**INNER_EXACT)
def _replace(labels: NDArray[np.uint32], table: NDArray[np.uint32]) -> None:
    for i in range(labels.size):
        labels[i] = table[labels[i]]
