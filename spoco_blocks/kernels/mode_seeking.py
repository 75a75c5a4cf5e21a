"""Modes of the embedding's density, and the nearest of them for every voxel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.distance import squared_distance
from spoco_blocks.kernels.half import INNER, JIT, as_bits
from spoco_blocks.kernels.nearest import WITHIN, nearest_mode
from spoco_blocks.kernels.rows import load_row

ModeTable = tuple[NDArray[Any], ...]

# Neighbours kept per mode for the triangle bound; beyond them a voxel is compared with all modes at once.
NEIGHBOURS = 8


def seek_modes(
    samples: NDArray[np.float32],
    bandwidth: float,
    min_samples: int,
    merge_radius: float,
    max_iterations: int = 20,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Find the modes of a sample by flat-kernel mean shift.

    Parameters
    ----------
    samples : ndarray of float32, shape (n, c)
        Embeddings in random order; the order decides which of them start a search.
    bandwidth : float
        Radius of the kernel.
    min_samples : int
        Modes with fewer samples within the bandwidth are dropped.
    merge_radius : float
        A mode this close to one with more samples is dropped.
    max_iterations : int
        Steps of one search at most.

    Returns
    -------
    modes : ndarray of float32, shape (k, c)
        Where the searches ended, by falling number of samples.
    counts : ndarray of int64, shape (k,)
        Samples within the bandwidth of each mode.

    Notes
    -----
    Mean shift after Comaniciu and Meer (PAMI 24, 2002). A search starts at the first sample that no earlier search has
    covered, so there are about as many searches as modes. A search first collects the samples within twice the
    bandwidth of where it stands and steps among those alone until it has drifted by one bandwidth. The samples lie
    sorted along the axis of largest spread, which bounds what is looked at. About O(k n c w) time with w the share of
    that spread within four bandwidths; memory 4 c + 30 bytes per sample.
    """
    n, c = samples.shape
    if n == 0:
        return np.empty((0, c), np.float32), np.empty(0, np.int64)
    samples = np.ascontiguousarray(samples, np.float32)
    axis = int(np.argmax(samples.std(axis=0, dtype=np.float64)))
    order = np.argsort(samples[:, axis], kind="stable")
    starts = np.empty(n, np.int64)
    starts[order] = np.arange(n)
    centres, counts = _searches(
        samples[order], axis, starts, np.float32(bandwidth), int(min_samples), int(max_iterations)
    )
    ranking = np.argsort(-counts, kind="stable")
    keep = _apart(centres[ranking], np.float32(merge_radius))
    return centres[ranking][keep], counts[ranking][keep]


def nearest_modes(
    embeddings: NDArray[Any],
    mask: NDArray[np.bool_],
    modes: NDArray[np.float32],
    max_distance: float = np.inf,
) -> NDArray[np.int32]:
    """Give the nearest mode of every voxel in a mask.

    Parameters
    ----------
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        The embedding of every voxel.
    mask : ndarray of bool, shape (z, y, x)
        The voxels to assign.
    modes : ndarray of float32, shape (k, c)
        The modes.
    max_distance : float
        Voxels farther than this from every mode get none.

    Returns
    -------
    ndarray of int32, shape (z, y, x)
        0 outside the mask, 1 to k the nearest mode (the first of equally near ones), k + 1 in the mask without a mode.

    Notes
    -----
    Exact. Starts from the mode m of a neighbouring voxel and goes through its neighbours by growing distance until
    |m - m'| > 2 |e - m|, where the triangle inequality rules out all further ones (Elkan, ICML 2003). One or two
    distances per voxel where objects are wider than a voxel; O(k) at worst. Memory: 4 bytes per voxel and 64
    per mode.
    """
    nearest = np.zeros(mask.shape, np.int32)
    if len(modes) == 0:
        nearest[mask] = 1
        return nearest
    bound = np.float32(float(max_distance) ** 2)
    _nearest(as_bits(embeddings), mask, mode_table(modes), bound, nearest)
    return nearest


def mode_table(modes: NDArray[np.float32]) -> ModeTable:
    """Give modes with the nearest other ones of each.

    Parameters
    ----------
    modes : ndarray of float32, shape (k, c)
        The modes.

    Returns
    -------
    modes : ndarray of float32, shape (k, c)
        The same, contiguous.
    neighbours : ndarray of int32, shape (k, w)
        The nearest other modes of each, by growing distance.
    gaps : ndarray of float32, shape (k, w)
        Their squared distances.
    lines : ndarray of float32, shape (c, k)
        The modes, channel by channel.
    distances : ndarray of float32, shape (k,)
        Scratch memory.
    """
    modes = np.ascontiguousarray(modes, np.float32)
    k = len(modes)
    width = max(0, min(k - 1, NEIGHBOURS))
    neighbours = np.empty((k, width), np.int32)
    gaps = np.empty((k, width), np.float32)
    wide = modes.astype(np.float64)
    norms = (wide**2).sum(1)
    for start in range(0, k, 1024):
        rows = slice(start, min(start + 1024, k))
        squared = norms[rows, None] + norms - 2 * (wide[rows] @ wide.T)
        squared[np.arange(len(squared)), np.arange(rows.start, rows.stop)] = np.inf
        if width < k - 1:
            chosen = np.argpartition(squared, width - 1, axis=1)[:, :width]
        else:
            chosen = np.broadcast_to(np.arange(k), (len(squared), k))
        order = np.argsort(np.take_along_axis(squared, chosen, 1), axis=1, kind="stable")[:, :width]
        neighbours[rows] = np.take_along_axis(chosen, order, 1)
        gaps[rows] = np.maximum(np.take_along_axis(squared, neighbours[rows], 1), 0)
    return modes, neighbours, gaps, np.ascontiguousarray(modes.T), np.empty(k, np.float32)


@njit(**JIT)
def _searches(
    samples: NDArray[np.float32],
    axis: int,
    starts: NDArray[np.int64],
    bandwidth: np.float32,
    min_samples: int,
    max_iterations: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    n, c = samples.shape
    keys = samples[:, axis].copy()
    square = bandwidth * bandwidth
    covered = np.zeros(n, np.bool_)
    # One more than there are samples: each is noted before it is known to be one.
    near, hits = np.empty(n + 1, np.int32), np.empty(n, np.int32)
    total, mean, anchor = np.empty(c, np.float64), np.empty(c, np.float32), np.empty(c, np.float32)
    centres, counts = np.empty((16, c), np.float32), np.empty(16, np.int64)
    found = 0
    for start in starts:
        if covered[start]:
            continue
        mean[:] = samples[start]
        n_near = n_hits = 0
        for iteration in range(max_iterations):
            if iteration == 0 or squared_distance(mean, anchor) > np.float32(0.99) * square:
                anchor[:] = mean
                first = np.searchsorted(keys, anchor[axis] - 2 * bandwidth)
                last = np.searchsorted(keys, anchor[axis] + 2 * bandwidth, side="right")
                n_near = _collect(samples, first, last, anchor, 4 * square, near)
            n_hits = _add_up(samples, near[:n_near], mean, square, hits, total)
            # What a search passes would end where it ends.
            for j in range(n_hits):
                covered[hits[j]] = True
            if n_hits == 0 or (iteration == 0 and n_hits < min_samples // 4):
                break
            if _move(mean, total, n_hits) < np.float32(1e-4) * square:
                break
        covered[start] = True
        if n_hits < min_samples:
            continue
        if found == len(counts):
            centres = np.concatenate((centres, np.empty_like(centres)))
            counts = np.concatenate((counts, np.empty_like(counts)))
        centres[found], counts[found] = mean, n_hits
        found += 1
    return centres[:found].copy(), counts[:found].copy()


@njit(**INNER)
def _collect(
    samples: NDArray[np.float32],
    first: int,
    last: int,
    centre: NDArray[np.float32],
    square: np.float32,
    near: NDArray[np.int32],
) -> int:
    """Note the samples of a range that lie within a radius, and give how many."""
    count = 0
    for i in range(first, last):
        near[count] = i
        count += squared_distance(samples[i], centre) <= square
    return count


@njit(**INNER)
def _add_up(
    samples: NDArray[np.float32],
    near: NDArray[np.int32],
    centre: NDArray[np.float32],
    square: np.float32,
    hits: NDArray[np.int32],
    total: NDArray[np.float64],
) -> int:
    """Note those of some samples that lie within a radius, with their sum, and give how many."""
    total[:] = 0
    count = 0
    for i in near:
        if squared_distance(samples[i], centre) <= square:
            hits[count] = i
            count += 1
            for k in range(len(total)):
                total[k] += samples[i, k]
    return count


@njit(**INNER)
def _move(mean: NDArray[np.float32], total: NDArray[np.float64], count: int) -> np.float32:
    """Move to the mean of a sum, and give the squared distance."""
    shift = np.float32(0)
    for k in range(len(mean)):
        value = np.float32(total[k] / count)
        shift += (value - mean[k]) ** 2
        mean[k] = value
    return shift


@njit(**JIT)
def _apart(centres: NDArray[np.float32], radius: np.float32) -> NDArray[np.int64]:
    kept = np.empty(len(centres), np.int64)
    n = 0
    for i in range(len(centres)):
        free = True
        for j in range(n):
            if squared_distance(centres[i], centres[kept[j]]) < radius * radius:
                free = False
                break
        if free:
            kept[n] = i
            n += 1
    return kept[:n].copy()


@njit(**JIT)
def _nearest(
    embeddings: NDArray[Any], mask: NDArray[np.bool_], table: Any, bound: np.float32, nearest: NDArray[np.int32]
) -> None:
    channels, nz, ny, nx = embeddings.shape
    modes, _, gaps = table[:3]
    k = len(modes)
    row = np.empty((nx, channels), np.float32)
    scratch = np.empty((channels, nx), np.float32)
    mode = 0
    for z in range(nz):
        for y in range(ny):
            inside = mask[z, y]
            if not np.any(inside):
                continue
            load_row(embeddings, z, y, scratch, row)
            above = nearest[z, max(y - 1, 0)]
            before = nearest[max(z - 1, 0), y]
            for x in range(nx):
                if not inside[x]:
                    continue
                squared = squared_distance(row[x], modes[mode])
                if k > 1 and gaps[mode, 0] <= WITHIN * squared:
                    mode, squared = nearest_mode(row[x], mode, above[x], before[x], table)
                nearest[z, y, x] = mode + 1 if squared <= bound else k + 1
