"""Fragments that are no objects but the transition between two neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.components import count_voxels
from spoco_blocks.kernels.half import JIT_EXACT, as_channels, widen
from spoco_blocks.kernels.regions import contacts

# How far beside the line between two neighbours a blend of them may lie, as a part of the line's length: half of what
# a third mean has that is as far from both as they are from each other, and is blended with one of them by a third.
BESIDE = 0.29


def blend_owners(
    labels: NDArray[np.uint32],
    embeddings: NDArray[Any],
    foreground: NDArray[np.bool_],
    means: NDArray[np.floating[Any]],
    thickness: int,
) -> NDArray[np.uint32]:
    """Say which larger neighbour each fragment belongs to that is but a blend of it and something else.

    Parameters
    ----------
    labels : ndarray of uint32, shape (z, y, x)
        0, or 1 to k.
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        The embedding of every voxel.
    foreground : ndarray of bool, shape (z, y, x)
        Where objects are.
    means : ndarray of float, shape (k + 1, c)
        Mean embedding of each label; row 0 is not used.
    thickness : int
        Voxels over which objects blend. A blend has at most this many voxels per voxel face that it shares with its
        owner; what lies behind it is looked for this far away.

    Returns
    -------
    ndarray of uint32, shape (k + 1,)
        The owner of each label; itself where it is no blend.

    Notes
    -----
    The mean of a blend lies on the line from its owner's mean to that of another neighbour, or to the embedding of the
    background behind it; that of a thin object lies beside both. Two passes over the labels; embeddings are read at the
    voxels of flat fragments alone.
    """
    count = len(means) - 1
    owners = np.arange(count + 1, dtype=np.uint32)
    pairs, faces = contacts(labels)
    if not len(pairs):
        return owners
    voxels = count_voxels(labels, count + 1)
    small, large, shared = _by_size(pairs.astype(np.int64), faces, voxels)
    flat = voxels[small] <= thickness * shared
    wanted = np.zeros(count + 1, np.bool_)
    wanted[small[flat]] = True
    if not wanted.any():
        return owners
    sums, behind = np.zeros((count + 1, len(embeddings))), np.zeros(count + 1, np.int64)
    _background_behind(labels, foreground, as_channels(embeddings), wanted, thickness, sums, behind)
    both = np.concatenate([pairs, pairs[:, ::-1]]).astype(np.int64)
    order = np.argsort(both[:, 0], kind="stable")
    bounds = np.searchsorted(both[order, 0], np.arange(count + 2))
    for label, owner in zip(small[flat], large[flat], strict=True):
        others = both[order[bounds[label] : bounds[label + 1]], 1]
        ends = means[others[others != owner]]
        if behind[label]:
            ends = np.concatenate([ends, sums[label : label + 1] / behind[label]])
        if len(ends) and _on_a_line(means[label], means[owner], ends):
            owners[label] = owner
    # Owners are larger, so that following them comes to an end.
    while not np.array_equal(owners, owners[owners]):
        owners = owners[owners]
    return owners


def _by_size(
    pairs: NDArray[np.int64], faces: NDArray[np.int64], voxels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Give each label that has a larger neighbour, the one it shares most faces with, and how many."""
    swap = (voxels[pairs[:, 0]] > voxels[pairs[:, 1]]) | (
        (voxels[pairs[:, 0]] == voxels[pairs[:, 1]]) & (pairs[:, 0] < pairs[:, 1])
    )
    small, large = np.where(swap, pairs[:, 1], pairs[:, 0]), np.where(swap, pairs[:, 0], pairs[:, 1])
    order = np.lexsort((large, -faces, small))
    first = order[np.r_[True, np.diff(small[order]) > 0]]
    return small[first], large[first], faces[first]


def _on_a_line(mean: NDArray[Any], start: NDArray[Any], ends: NDArray[Any]) -> bool:
    """Whether a mean lies near the line from one point to one of others, between the two."""
    along = ends.astype(np.float64) - start
    lengths = np.maximum((along**2).sum(1), 1e-12)
    place = along @ (mean - start) / lengths
    beside = (mean - start) - place[:, None] * along
    return bool((((beside**2).sum(1) < BESIDE**2 * lengths) & (place > 0) & (place < 1)).any())


@njit(**JIT_EXACT)
def _background_behind(
    labels: NDArray[np.uint32],
    foreground: NDArray[np.bool_],
    flat: NDArray[Any],
    wanted: NDArray[np.bool_],
    steps: int,
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> None:
    nz, ny, nx = labels.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                label = labels[z, y, x]
                if not wanted[label]:
                    continue
                for axis in range(3):
                    for step in (-steps, steps):
                        there = (z + step * (axis == 0), y + step * (axis == 1), x + step * (axis == 2))
                        if min(there) < 0 or there[0] >= nz or there[1] >= ny or there[2] >= nx or foreground[there]:
                            continue
                        place = (there[0] * ny + there[1]) * nx + there[2]
                        counts[label] += 1
                        for c in range(len(flat)):
                            sums[label, c] += widen(flat[c, place])
