"""How far the mean of each segment lies from the nearest other one, for any number of segments."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from spoco_blocks.kernels.confidence import nearest_gaps
from spoco_blocks.stages.stitch.mapped import Workspace
from spoco_blocks.stages.stitch.sums import Sums


def gaps_to_nearest(sums: Sums, touching: Iterable[NDArray[np.integer]], space: Workspace) -> NDArray[np.float64]:
    """Do what `nearest_gaps` does, part by part.

    Parameters
    ----------
    sums : Sums
        Of all segments; those without voxels do not count.
    touching : iterable of ndarray of int, shape (m, 2)
        Segments that touch, block by block.
    space : Workspace
        Where the result lies.

    Returns
    -------
    (n,) float64
        In embedding units; infinite where there is no other segment.

    Notes
    -----
    Segments that touch none ask search trees of `mapped.PART` segments each: that of their own part, and those whose
    means might come nearer. Without coordinates in the embeddings these are all, and time grows with the square of
    the number of parts.
    """
    n = len(sums.voxels)
    gaps = space.zeros("gaps", np.float64, (n,))
    for part in space.parts(n):
        gaps[part] = np.inf
    for pairs in touching:
        segments, local = np.unique(pairs, return_inverse=True)
        # Every one of them touches another: none is left for the kernel to look for among all.
        found = nearest_gaps(sums.means(segments), [local.reshape(-1, 2)], np.zeros(len(segments), np.bool_))
        gaps[segments] = np.minimum(gaps[segments], found)
    _ask_trees(sums, gaps, space)
    return gaps


def _ask_trees(sums: Sums, gaps: NDArray[np.float64], space: Workspace) -> None:
    n = len(gaps)
    alone, spans = space.zeros("alone", np.bool_, (n,)), list(space.parts(n))
    for part in spans:
        alone[part] = np.isinf(gaps[part]) & (sums.voxels[part] > 0)
        space.let_go()
    alone[0] = False
    boxes = []
    for part in spans:
        means, asking = _present(sums, part), np.flatnonzero(alone[part]) + part.start
        boxes.append((means.min(axis=0), means.max(axis=0)) if len(means) else None)
        if len(asking) and len(means) > 1:
            # The nearest is the segment itself, or one that is equal.
            gaps[asking] = cKDTree(means).query(sums.means(asking), k=2)[0][:, 1]
        space.let_go()
    for part in spans:
        asking = np.flatnonzero(alone[part]) + part.start
        means, found = sums.means(asking), gaps[asking]
        for other, box in zip(spans, boxes, strict=True):
            if other == part or box is None:
                continue
            outside = np.maximum(np.maximum(box[0] - means, means - box[1]), 0)
            near = np.linalg.norm(outside, axis=1) < found
            if near.any():
                found[near] = np.minimum(found[near], cKDTree(_present(sums, other)).query(means[near])[0])
            space.let_go()
        gaps[asking] = found


def _present(sums: Sums, part: slice) -> NDArray[np.float64]:
    """Give the means of a part of the segments, of those that there are."""
    segments = np.flatnonzero(sums.voxels[part]) + part.start
    return sums.means(segments[segments > 0])
