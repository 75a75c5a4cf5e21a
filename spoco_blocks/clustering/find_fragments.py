"""The steps of `modes`: from the cores of a lattice to fragments that fill the foreground."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.clustering.context import Context
from spoco_blocks.kernels.agglomeration import agglomerate
from spoco_blocks.kernels.blends import blend_owners
from spoco_blocks.kernels.borders import EVENNESS, refine_borders
from spoco_blocks.kernels.components import count_voxels, equal_components, labelled_from
from spoco_blocks.kernels.contacts import contacts
from spoco_blocks.kernels.coreless import core_at, label_alike
from spoco_blocks.kernels.cores import label_cores
from spoco_blocks.kernels.distance import UNKNOWN, DistanceBounds
from spoco_blocks.kernels.growth import Growth
from spoco_blocks.kernels.lattice import Spread, spread_labels
from spoco_blocks.kernels.lookup import apply_lookup, remove_border

if TYPE_CHECKING:
    from spoco_blocks.clustering.modes import Modes

# Means of pieces of one object lie this many times the merge radius apart at most: those of small pieces are poor.
MERGE_FACTOR = 1.25
# Two voxels of one object may be this many times as far apart as a voxel and a mode: both are noisy.
ALIKE = 1.5
# Where a lattice misses cores of more than this part of the foreground, objects are too thin for one.
MISSED = 0.02


def find_fragments(
    settings: Modes,
    embeddings: NDArray[Any],
    foreground: NDArray[np.bool_],
    decided: tuple[float, float, NDArray[np.float32]],
    context: Context,
) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """Label the fragments of one array, and say which of them have no core.

    Parameters
    ----------
    settings : Modes
        The method.
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        Embeddings with coordinates added. Not changed.
    foreground : ndarray of bool, shape (z, y, x)
        Where objects are.
    decided : tuple of (float, float, ndarray of float32, shape (k, c))
        The gradient threshold, that of objects without a core, and the modes.
    context : Context
        Its step is used.

    Returns
    -------
    labels, coreless : ndarray of uint32, shape (z, y, x), ndarray of bool, shape (k + 1,)
        As `Modes.find` gives them.
    """
    threshold, coreless_threshold, modes = decided
    z, y, x = (1 if extent == 1 else s for extent, s in zip(foreground.shape, context.step, strict=True))
    spread, reached = _spread(settings, embeddings, foreground, threshold, modes, (z, y, x))
    if max(z, y, x) > 1 and len(spread.odd) > MISSED * np.count_nonzero(foreground):
        z = y = x = 1
        spread, reached = _spread(settings, embeddings, foreground, threshold, modes, (z, y, x))
    padded, first = spread.padded, len(spread.means)
    growth, cores = _add_missed(settings, spread, embeddings)
    growth.grow(max(0, min(settings.blend_voxels, settings.growth_rounds) - reached))
    _add_coreless(settings, growth, embeddings, coreless_threshold)
    growth.grow(settings.growth_rounds - min(settings.blend_voxels, settings.growth_rounds))
    _regrow_blends(settings, padded, embeddings, foreground, growth.means, labelled_from(padded, first))
    means, bounds = _merge_pieces(settings, spread, growth.means, (z, y, x))
    evenness = _evenness((z, y, x))
    refine_borders(padded, embeddings, means, settings.refinement_sweeps, evenness, bounds=bounds)
    # What has spread along the border of two objects meanwhile looks like a blend of them now.
    late = labelled_from(padded, first)
    _regrow_blends(settings, padded, embeddings, foreground, means, late)
    bounds.units.reshape(-1)[late] = UNKNOWN
    refine_borders(padded, embeddings, means, settings.refinement_sweeps, evenness, changed=late, bounds=bounds)
    voxels = count_voxels(padded, len(means))
    present = voxels > 0
    present[0] = True
    labels = remove_border(padded, (np.cumsum(present) - 1).astype(np.uint32))
    coreless = np.flatnonzero(present) >= cores
    if voxels[1:].sum() == np.count_nonzero(foreground):
        return labels, coreless
    left = foreground & (labels == 0)
    # What no core reaches and has none: fragments of their own rather than holes in the foreground.
    rest, sizes = equal_components(left.astype(np.int32), max(1, settings.min_core_voxels))
    labels = np.where(rest > 0, rest + np.uint32(len(coreless) - 1), labels)
    return labels, np.concatenate([coreless, np.ones(len(sizes) - 1, np.bool_)])


def _spread(
    settings: Modes,
    embeddings: NDArray[Any],
    foreground: NDArray[np.bool_],
    threshold: float,
    modes: NDArray[np.float32],
    step: tuple[int, int, int],
) -> tuple[Spread, int]:
    """Find the cores of a lattice, let them grow on it and spread to all voxels; and how far they have grown."""
    reach = max(settings.radius, settings.merging)
    # Fewer than there are voxels, since cores are mostly thick; not as few, since noise has small ones.
    least = -(-settings.min_core_voxels // max(step))
    cores, sizes, sums = label_cores(embeddings, foreground, threshold, modes, reach, least, step)
    means = sums / np.maximum(sizes, 1)[:, None]
    vectors, inside = _thinned(embeddings, step), np.ascontiguousarray(foreground[:: step[0], :: step[1], :: step[2]])
    growth = Growth(np.pad(cores, 1), vectors, np.flatnonzero(inside & (cores == 0)), means)
    rounds = -(-min(settings.blend_voxels, settings.growth_rounds) // max(step))
    growth.grow(rounds)
    places = np.flatnonzero(growth.padded)
    _regrow_blends(settings, growth.padded, vectors, inside, means, places, max(step))
    refine_borders(growth.padded, vectors, means, settings.refinement_sweeps // max(step), _evenness(step))
    lattice = growth.padded[1:-1, 1:-1, 1:-1]
    return spread_labels(lattice, embeddings, foreground, means, step, reach, threshold), rounds * max(step)


def _evenness(step: tuple[int, int, int]) -> float:
    """What straightens the borders of thick objects would eat those that are too thin for a lattice."""
    return EVENNESS if max(step) > 1 else 0.0


def _thinned(embeddings: NDArray[Any], step: tuple[int, int, int]) -> NDArray[Any]:
    """Give the embeddings of a lattice."""
    z, y, x = step
    if x == 2 and embeddings.shape[-1] % 2 == 0 and embeddings.flags.c_contiguous and sys.byteorder == "little":
        # The lower half of each pair as a number: numpy copies it twice as quickly as every second value.
        single, pair = (np.uint16, np.uint32) if embeddings.itemsize == 2 else (np.uint32, np.uint64)
        return embeddings.view(pair)[:, ::z, ::y].astype(single).view(embeddings.dtype)
    return np.ascontiguousarray(embeddings[:, ::z, ::y, ::x])


def _add_missed(settings: Modes, spread: Spread, embeddings: NDArray[Any]) -> tuple[Growth, int]:
    """Find cores that lie between the lattice's voxels, and how many labels there are then, 0 with them."""
    padded, shape, empty, means = spread.padded, embeddings.shape[1:], spread.empty, spread.means
    if len(spread.odd):
        vectors = np.stack([channel.reshape(-1)[spread.odd] for channel in embeddings], axis=1).astype(np.float32)
        found, more = label_alike(spread.odd, vectors, shape, alike_distance(settings), settings.min_core_voxels)
        inside, places = padded[1:-1, 1:-1, 1:-1], np.unravel_index(spread.odd[found > 0], shape)
        inside[places] = found[found > 0] + np.uint32(len(means) - 1)
        spread.bounds.units[1:-1, 1:-1, 1:-1][places] = UNKNOWN
        means = np.concatenate([means, more[1:].astype(np.float32)])
        empty = empty[inside[np.unravel_index(empty, shape)] == 0]
    return Growth(padded, embeddings, empty, means), len(means)


def alike_distance(settings: Modes) -> float:
    """Give how far apart neighbours of one object may be that is known by no mode."""
    return ALIKE * max(settings.radius, settings.merging)


def _add_coreless(settings: Modes, growth: Growth, embeddings: NDArray[Any], threshold: float) -> None:
    """Find objects whose whole width changes quickly: their least changing voxels are cores for them."""
    places, vectors = growth.unreached
    if len(places) < max(1, settings.min_core_voxels):
        return
    core = np.flatnonzero(core_at(embeddings, places, threshold))
    labels = np.zeros(len(places), np.uint32)
    labels[core], means = label_alike(
        places[core], vectors[core], embeddings.shape[1:], alike_distance(settings), settings.min_core_voxels
    )
    growth.seed(labels, means)


def _regrow_blends(
    settings: Modes,
    padded: NDArray[np.uint32],
    embeddings: NDArray[Any],
    foreground: NDArray[np.bool_],
    means: NDArray[np.floating[Any]],
    places: NDArray[np.int64],
    step: int = 1,
) -> None:
    """Leave what is but a blend of others, of the labels at some voxels, to its neighbours."""
    if not settings.blend_voxels:
        return
    labels = padded.reshape(-1)
    owners = blend_owners(padded, places, embeddings, foreground, means, -(-settings.blend_voxels // step))
    given_up = owners != np.arange(len(owners))
    places = places[given_up[labels[places]]]
    labels[places] = 0
    z, y, x = np.unravel_index(places, padded.shape)
    sources = np.ravel_multi_index((z - 1, y - 1, x - 1), foreground.shape)
    Growth(padded, embeddings, sources, means).grow(sum(padded.shape))


def _merge_pieces(
    settings: Modes, spread: Spread, means: NDArray[np.float32], step: tuple[int, int, int]
) -> tuple[NDArray[np.float64], DistanceBounds]:
    """Join pieces of one object while their means are those of cores, and give the means then, and how far they are."""
    weights = np.concatenate(
        [spread.counts, np.full(len(means) - len(spread.counts), max(1, settings.min_core_voxels))]
    )
    weights[1:] = np.maximum(weights[1:], 1)
    on_lattice = spread.padded[tuple(slice(1, -1, s) for s in step)]
    pairs, faces = contacts(np.ascontiguousarray(on_lattice))
    roots = agglomerate(
        pairs.astype(np.int64),
        faces,
        np.zeros(len(pairs), np.bool_),
        weights,
        means * weights[:, None],
        merge_distance=MERGE_FACTOR * settings.merging,
        small_voxels=0,
        small_distance=0.0,
    )
    apply_lookup(spread.padded, roots.astype(np.uint32), out=spread.padded)
    sums = np.zeros(means.shape)
    np.add.at(sums, roots, means * weights[:, None])
    joined = sums / np.maximum(np.bincount(roots, weights, len(means)), 1)[:, None]
    roots = roots[: len(spread.measured)]
    moved = np.zeros(len(means))
    np.maximum.at(moved, roots, np.linalg.norm(joined[roots] - spread.measured, axis=1))
    return joined, replace(spread.bounds, moved=moved)
