"""The decision: which fragments are one object. Tables in, table out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.kernels.agglomeration import agglomerate
from spoco_blocks.kernels.mutex import mutex_clusters
from spoco_blocks.settings.segmentation import StitchingSettings
from spoco_blocks.stages.stitch.tables import SHARES, Edges, Fragments


def decide(fragments: Fragments, edges: Edges, settings: StitchingSettings, *, final: bool) -> NDArray[np.int64]:
    """Give the smallest fragment of the segment that each fragment belongs to.

    Parameters
    ----------
    fragments, edges : Fragments, Edges
        Those of the whole volume; edges as `load_overlaps` gives them where fragments are final objects.
    settings : StitchingSettings
        Thresholds.
    final : bool
        Whether fragments are final objects, which are joined by what two blocks see in one place.
    """
    if final:
        return join_overlapping(edges, len(fragments.voxels), settings.min_overlap)
    return agglomerate(
        edges.pairs,
        edges.contacts,
        distinct_pairs(fragments, edges, settings.distinct_distance),
        fragments.weights,
        fragments.sums,
        merge_distance=settings.merge_distance,
        small_voxels=settings.small_voxels,
        small_distance=settings.small_distance,
    )


def join_overlapping(edges: Edges, count: int, min_overlap: float) -> NDArray[np.int64]:
    """Join final objects that two blocks saw in one place, the surest first; what one block saw apart stays apart."""
    joining = ~edges.same_block & (edges.contacts >= min_overlap * SHARES)
    order = np.concatenate(
        [np.flatnonzero(edges.same_block), np.flatnonzero(joining)[np.argsort(-edges.contacts[joining], kind="stable")]]
    )
    first, second = np.ascontiguousarray(edges.pairs[order].T)
    roots: NDArray[np.int64] = mutex_clusters(first, second, edges.same_block[order], count)
    return roots


def distinct_pairs(fragments: Fragments, edges: Edges, distance: float) -> NDArray[np.bool_]:
    """Tell which pairs one block saw as different objects: fragments of one object may lie apart, but not far."""
    means = fragments.sums / np.maximum(fragments.weights, 1)[:, None]
    apart = np.linalg.norm(means[edges.pairs[:, 0]] - means[edges.pairs[:, 1]], axis=1)
    return np.asarray(edges.same_block & (apart > distance))


def number_segments(
    roots: NDArray[np.int64], voxels: NDArray[np.int64], min_voxels: int
) -> NDArray[np.unsignedinteger[Any]]:
    """Give every fragment its segment's id: 1..n in the order of the first fragments, 0 for what is too small."""
    sizes = np.bincount(roots, voxels, len(roots)).astype(np.int64)
    kept = (roots == np.arange(len(roots))) & (sizes >= max(1, min_voxels))
    kept[0] = False
    ids = np.where(kept, np.cumsum(kept), 0)[roots]
    return ids.astype(np.dtype("uint32" if kept.sum() < 2**32 else "uint64"))
