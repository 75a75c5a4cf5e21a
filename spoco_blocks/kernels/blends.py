"""Fragments that are no objects but the transition between two neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.contacts import contacts_at
from spoco_blocks.kernels.half import INNER_EXACT, as_channels, widen

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
        Flat indices, with the border, of all voxels of the labels that are judged. All others are objects, and count
        as larger than these.
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
    fragments alone. Memory: 64 bytes for each pair of labels.
    """
    own = padded.reshape(-1)[places]
    voxels = np.bincount(own, minlength=len(means))
    found, faces = contacts_at(padded, places, voxels > 0)
    pairs = found.astype(np.int64)
    voxels[voxels == 0] = padded.size
    wanted = np.zeros(len(means), np.bool_)
    wanted[flat_labels(pairs, faces, voxels, thickness)[0]] = True
    behind = background_behind(padded, places[wanted[own]], embeddings, foreground, thickness, len(means))
    return owners_by_contacts(pairs, faces, voxels, means, behind, thickness)


def flat_labels(
    pairs: NDArray[np.int64], faces: NDArray[np.int64], voxels: NDArray[np.int64], thickness: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the labels that are no thicker than a transition where they touch a larger one, and that larger one.

    Parameters
    ----------
    pairs : ndarray of int64, shape (m, 2)
        Labels that touch, a < b.
    faces : ndarray of int64, shape (m,)
        Voxel faces between them.
    voxels : ndarray of int64, shape (k + 1,)
        Voxels of each label; larger than all others where it is not judged.
    thickness : int
        Voxels per voxel face, at most.

    Returns
    -------
    labels, owners : ndarray of int64, shape (j,)
        The flat labels, rising, and of each the larger label that it shares most faces with.
    """
    if not len(pairs):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    small, large = _by_size(pairs, voxels)
    most = _first_of_each(small, -faces, large)
    flat = most[voxels[small[most]] <= thickness * faces[most]]
    return small[flat], large[flat]


def background_behind(
    padded: NDArray[np.uint32],
    places: NDArray[np.int64],
    embeddings: NDArray[Any],
    foreground: NDArray[np.bool_],
    thickness: int,
    count: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum up the background that lies a transition's width away from the voxels of labels.

    Parameters
    ----------
    padded, places, embeddings, foreground, thickness
        As of `blend_owners`.
    count : int
        Labels, 0 included.

    Returns
    -------
    sums, voxels : ndarray of float64, shape (count, c), ndarray of int64, shape (count,)
        Sums of embeddings, and of how many background voxels, counted as often as they are seen.
    """
    sums, behind = np.zeros((count, len(embeddings))), np.zeros(count, np.int64)
    _background_behind(padded.reshape(-1), places, foreground, as_channels(embeddings), thickness, sums, behind)
    return sums, behind


def owners_by_contacts(
    pairs: NDArray[np.int64],
    faces: NDArray[np.int64],
    voxels: NDArray[np.int64],
    means: NDArray[np.floating[Any]],
    behind: tuple[NDArray[np.float64], NDArray[np.int64]],
    thickness: int,
) -> NDArray[np.uint32]:
    """Give what `blend_owners` gives, of tables alone.

    Parameters
    ----------
    pairs, faces, voxels, thickness
        As of `flat_labels`.
    means : ndarray of float, shape (k + 1, c)
        Mean embedding of each label; row 0 is not used.
    behind : tuple of ndarrays
        As `background_behind` gives it, of flat labels at least.

    Returns
    -------
    ndarray of uint32, shape (k + 1,)
        The owner of each label; itself where it is no blend.
    """
    owners = np.arange(len(means), dtype=np.uint32)
    flat, larger = flat_labels(pairs, faces, voxels, thickness)
    owner = np.zeros(len(means), np.int64)
    owner[flat] = larger
    both = np.concatenate([pairs, pairs[:, ::-1]])
    both = both[(owner[both[:, 0]] > 0) & (both[:, 1] != owner[both[:, 0]])]
    seen = flat[behind[1][flat] > 0]
    ends = np.concatenate([means[both[:, 1]], behind[0][seen] / behind[1][seen, None]])
    labels = np.concatenate([both[:, 0], seen])
    blends = labels[_on_a_line(means[labels], means[owner[labels]], ends)]
    owners[blends] = owner[blends]
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


def _on_a_line(means: NDArray[Any], starts: NDArray[Any], ends: NDArray[Any]) -> NDArray[np.bool_]:
    """Say which means lie near the line from one point to another, between the two."""
    along, from_start = ends.astype(np.float64) - starts, means - starts
    lengths = np.maximum((along**2).sum(1), 1e-12)
    place = (along * from_start).sum(1) / lengths
    beside = from_start - place[:, None] * along
    return ((beside**2).sum(1) < BESIDE**2 * lengths) & (place > 0) & (place < 1)  # type: ignore[no-any-return]


@njit(**INNER_EXACT)
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
