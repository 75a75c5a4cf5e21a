"""Fragments that are no objects but the transition between two neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.growable import with_room
from spoco_blocks.kernels.half import JIT_EXACT, as_channels, widen

# How far beside the line between two neighbours a blend of them may lie, as a part of the line's length: half of what
# a third mean has that is as far from both as they are from each other, and is blended with one of them by a third.
BESIDE = 0.29


def blend_owners(
    padded: NDArray[np.uint32],
    places: NDArray[np.int64],
    embeddings: NDArray[Any],
    foreground: NDArray[np.bool_],
    means: NDArray[np.floating[Any]],
    thickness: int,
) -> NDArray[np.uint32]:
    """Say which larger neighbour each fragment belongs to that is but a blend of it and something else.

    Parameters
    ----------
    padded : ndarray of uint32, shape (z + 2, y + 2, x + 2)
        0, or 1 to k, with a border of zeros.
    places : ndarray of int64, shape (m,)
        Flat indices, with the border, of all voxels of the labels that are judged: some label and all above it. Those
        below are objects, and larger than all of these.
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
    background behind it; that of a thin object lies beside both. O(m) time; embeddings are read at the voxels of flat
    fragments alone. Memory: 8 bytes for each face between labels.
    """
    count = len(means) - 1
    owners = np.arange(count + 1, dtype=np.uint32)
    labels = padded.reshape(-1)
    first = int(labels[places].min(initial=count + 1))
    keys, faces = np.unique(_contacts(labels, places, padded.shape, first), return_counts=True)
    if not len(keys):
        return owners
    pairs = np.stack([keys >> 32, keys & 0xFFFFFFFF], axis=1)
    voxels = np.bincount(labels[places], minlength=count + 1)
    voxels[:first] = padded.size
    small, large = _by_size(pairs, voxels)
    most = _first_of_each(small, -faces, large)
    flat = most[voxels[small[most]] <= thickness * faces[most]]
    wanted = np.zeros(count + 1, np.bool_)
    wanted[small[flat]] = True
    sums, behind = np.zeros((count + 1, len(embeddings))), np.zeros(count + 1, np.int64)
    places = places[wanted[labels[places]]]
    _background_behind(labels, places, foreground, as_channels(embeddings), thickness, sums, behind)
    both = np.concatenate([pairs, pairs[:, ::-1]])
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


def _by_size(pairs: NDArray[np.int64], voxels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the smaller and the larger of each pair."""
    a, b = pairs[:, 0], pairs[:, 1]
    swap = (voxels[a] > voxels[b]) | ((voxels[a] == voxels[b]) & (a < b))
    return np.where(swap, b, a), np.where(swap, a, b)


def _first_of_each(small: NDArray[np.int64], rank: NDArray[Any], large: NDArray[np.int64]) -> NDArray[np.intp]:
    """Give the pair of lowest rank of each smaller label."""
    order = np.lexsort((large, rank, small))
    first: NDArray[np.intp] = order[np.r_[True, np.diff(small[order]) > 0]]
    return first


def _on_a_line(mean: NDArray[Any], start: NDArray[Any], ends: NDArray[Any]) -> bool:
    """Whether a mean lies near the line from one point to one of others, between the two."""
    along = ends.astype(np.float64) - start
    lengths = np.maximum((along**2).sum(1), 1e-12)
    place = along @ (mean - start) / lengths
    beside = (mean - start) - place[:, None] * along
    return bool((((beside**2).sum(1) < BESIDE**2 * lengths) & (place > 0) & (place < 1)).any())


@njit(**JIT_EXACT)
def _contacts(
    labels: NDArray[np.uint32], places: NDArray[np.int64], shape: tuple[int, ...], first: int
) -> NDArray[np.int64]:
    """Give both labels, the smaller one in the upper half, of every voxel face between judged voxels and others."""
    _, wy, wx = shape
    found = np.empty(4096, np.int64)
    count = 0
    for place in places:
        own = np.int64(labels[place])
        found = with_room(found, count + 6)
        for offset in (-wy * wx, -wx, -1, 1, wx, wy * wx):
            other = np.int64(labels[place + offset])
            # A face between two judged voxels is seen from both.
            if other not in (0, own) and (other < first or offset > 0):
                found[count] = min(own, other) << 32 | max(own, other)
                count += 1
    return found[:count].copy()


@njit(**JIT_EXACT)
def _background_behind(
    labels: NDArray[np.uint32],
    places: NDArray[np.int64],
    foreground: NDArray[np.bool_],
    flat: NDArray[Any],
    steps: int,
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> None:
    nz, ny, nx = foreground.shape
    for place in places:
        row, x = place // (nx + 2), place % (nx + 2) - 1
        z, y = row // (ny + 2) - 1, row % (ny + 2) - 1
        label = labels[place]
        for axis in range(3):
            for step in (-steps, steps):
                there = (z + step * (axis == 0), y + step * (axis == 1), x + step * (axis == 2))
                if min(there) < 0 or there[0] >= nz or there[1] >= ny or there[2] >= nx or foreground[there]:
                    continue
                at = (there[0] * ny + there[1]) * nx + there[2]
                counts[label] += 1
                for c in range(len(flat)):
                    sums[label, c] += widen(flat[c, at])
