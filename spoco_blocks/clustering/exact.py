"""`modes` in passes of which none sees more than its halo: what is found in a block is what the whole volume gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spoco_blocks.clustering.find_fragments import alike_distance
from spoco_blocks.kernels.borders import refine_borders
from spoco_blocks.kernels.components import equal_components
from spoco_blocks.kernels.coreless import core_at, label_alike
from spoco_blocks.kernels.gradient import core_mask
from spoco_blocks.kernels.growth import Growth
from spoco_blocks.kernels.lookup import remove_border
from spoco_blocks.kernels.mode_seeking import nearest_modes

if TYPE_CHECKING:
    from spoco_blocks.clustering.modes import Modes

# Embeddings become multiples of this, so that float64 sums of them do not depend on the order of the voxels.
UNIT = 2.0**-12


def exact_halo(settings: Modes) -> int:
    """Give the margin beyond which nothing changes what a pass finds in a block.

    Parameters
    ----------
    settings : Modes
        The method.

    Returns
    -------
    int
        Voxels: of small components and growth on the way to a seed, or of growth, refining and what lies behind.
    """
    seeds = 2 * max(1, settings.min_core_voxels) + settings.blend_voxels + 2
    return max(seeds, settings.growth_rounds + max(2 * settings.refinement_sweeps, settings.blend_voxels) + 2)


def rounded(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round embeddings, in place, to multiples of a unit that is finer than what they are stored in."""
    np.multiply(embeddings, np.float32(1 / UNIT), out=embeddings)
    np.rint(embeddings, out=embeddings)
    return np.multiply(embeddings, np.float32(UNIT), out=embeddings)


def modes_within_reach(
    modes: NDArray[np.float32], embeddings: NDArray[np.float32], foreground: NDArray[np.bool_], reach: float
) -> NDArray[np.float32]:
    """Leave out modes that no voxel of an array is near.

    Parameters
    ----------
    modes : ndarray of float32, shape (k, c)
        All modes of the volume.
    embeddings : ndarray of float32, shape (c, z, y, x)
        Embeddings in the same frame.
    foreground : ndarray of bool, shape (z, y, x)
        Where objects are, at least one voxel.
    reach : float
        How far a voxel may be from its mode.

    Returns
    -------
    ndarray of float32, shape (m, c)
        Those inside the smallest box around the embeddings of the foreground, widened by the reach, in the same order.
    """
    wide = np.float32(1.001 * reach)
    inside = np.ones(len(modes), np.bool_)
    for channel, values in enumerate(embeddings):
        low = np.min(values, where=foreground, initial=np.inf)
        high = np.max(values, where=foreground, initial=-np.inf)
        inside &= (modes[:, channel] >= low - wide) & (modes[:, channel] <= high + wide)
    return modes[inside]


def find_seeds(
    settings: Modes,
    embeddings: NDArray[np.float32],
    foreground: NDArray[np.bool_],
    decided: tuple[float, float, NDArray[np.float32]],
    kept: tuple[slice, ...],
) -> tuple[NDArray[np.uint32], int]:
    """Label what fragments grow from: cores, and the middles of thin objects that have none.

    Parameters
    ----------
    settings : Modes
        The method.
    embeddings : ndarray of float32, shape (c, z, y, x)
        Embeddings, with `exact_halo` voxels around what is kept, where the volume goes on.
    foreground : ndarray of bool, shape (z, y, x)
        Where objects are.
    decided : tuple of (float, float, ndarray of float32, shape (k, c))
        The gradient threshold, that of objects without a core, and the modes within reach.
    kept : tuple of slice
        What is labelled.

    Returns
    -------
    labels : ndarray of uint32, shape of what is kept
        0; 1 to `cores` are components of core voxels with one nearest mode, those above such of thin objects.
    cores : int
        How many are cores.

    Notes
    -----
    Seeds of fewer than `min_core_voxels` are left out, by their size in the whole volume: none of them reaches farther
    than that. Two voxels that are kept have one label where a path of seeds within what is kept connects them.
    """
    threshold, coreless, modes = decided
    reach, least = max(settings.radius, settings.merging), max(1, settings.min_core_voxels)
    mode = nearest_modes(embeddings, core_mask(embeddings, foreground, threshold), modes, reach)
    mode[mode > len(modes)] = 0
    mode[equal_components(mode, least)[0] == 0] = 0
    near = mode > 0
    if settings.blend_voxels:  # scipy takes 0 for as far as it goes
        near = ndimage.binary_dilation(near, iterations=settings.blend_voxels, mask=foreground)
    places = np.flatnonzero(foreground & ~near)
    places = places[core_at(embeddings, places, coreless)]
    alike, shape = alike_distance(settings), foreground.shape
    thin = np.zeros(shape, np.bool_)
    thin.reshape(-1)[places] = label_alike(places, _vectors(embeddings, places), shape, alike, least)[0] > 0
    # Once more without the margin, where it is not known what is a seed.
    labels, sizes = equal_components(np.ascontiguousarray(mode[kept]))
    places = np.flatnonzero(thin[kept])
    inside = np.ascontiguousarray(embeddings[:, *kept])
    found, _ = label_alike(places, _vectors(inside, places), labels.shape, alike, 1)
    labels.reshape(-1)[places] = found + np.uint32(len(sizes) - 1)
    return labels, len(sizes) - 1


def _vectors(embeddings: NDArray[np.float32], places: NDArray[np.intp]) -> NDArray[np.float32]:
    return np.stack([channel.reshape(-1)[places] for channel in embeddings], axis=1)


def grow_seeds(
    settings: Modes,
    embeddings: NDArray[np.float32],
    foreground: NDArray[np.bool_],
    seeds: NDArray[np.uint32],
    cores: int,
    means: NDArray[np.floating[Any]],
) -> NDArray[np.uint32]:
    """Let seeds grow: cores first, the others with them once they are as far as objects blend.

    Parameters
    ----------
    settings : Modes
        The method.
    embeddings : ndarray of float32, shape (c, z, y, x)
        Embeddings.
    foreground : ndarray of bool, shape (z, y, x)
        Where objects are.
    seeds : ndarray of uint32, shape (z, y, x)
        0, or the seed: up to `cores` of core voxels, above of thin objects, in an order that the volume gives.
    cores : int
        How many of them are cores.
    means : ndarray of float, shape (k + 1, c)
        Mean embedding of each seed in the whole volume; row 0 is not used.

    Returns
    -------
    ndarray of uint32, shape (z + 2, y + 2, x + 2)
        The seed that each voxel belongs to, with a border of zeros.
    """
    padded = np.pad(np.where(seeds <= cores, seeds, np.uint32(0)), 1)
    waiting = np.flatnonzero(foreground & ((seeds == 0) | (seeds > cores)))
    growth = Growth(padded, embeddings, waiting, means[: cores + 1])
    rounds = min(settings.blend_voxels, settings.growth_rounds)
    growth.grow(rounds)
    thin = seeds.reshape(-1)[growth.unreached[0]]
    growth.seed(np.where(thin > cores, thin - np.uint32(cores), np.uint32(0)), means[cores:])
    growth.grow(settings.growth_rounds - rounds)
    return padded


def refined(
    settings: Modes,
    embeddings: NDArray[np.float32],
    padded: NDArray[np.uint32],
    means: NDArray[np.floating[Any]],
) -> NDArray[np.uint32]:
    """Straighten the borders of grown labels, and take their border of zeros off.

    Parameters
    ----------
    settings : Modes
        The method.
    embeddings : ndarray of float32, shape (c, z, y, x)
        Embeddings of an array that starts at an even z + y + x, so that voxels take turns alike in all arrays.
    padded : ndarray of uint32, shape (z + 2, y + 2, x + 2)
        0, or 1 to k, with a border of zeros; changed.
    means : ndarray of float, shape (k + 1, c)
        Mean embedding of each label in the whole volume.

    Returns
    -------
    ndarray of uint32, shape (z, y, x)
        The labels.
    """
    refine_borders(padded, embeddings, means, settings.refinement_sweeps)
    return remove_border(padded, np.arange(len(means), dtype=np.uint32))
