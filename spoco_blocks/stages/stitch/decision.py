"""The decision: which fragments are one object. Tables in, table out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.clustering.modes import MERGE_FACTOR, OBJECT_DISTANCE
from spoco_blocks.kernels.agglomeration import agglomerate
from spoco_blocks.kernels.islands import number_roots
from spoco_blocks.kernels.mutex import mutex_clusters
from spoco_blocks.settings.jobs import digest
from spoco_blocks.settings.segmentation import StitchingSettings
from spoco_blocks.stages.stitch.islands import BATCH, CHUNK, Graph, decide_islands
from spoco_blocks.stages.stitch.tables import SHARES, Column, Edges, Fragments


def distances(settings: StitchingSettings, object_distance: float) -> tuple[float, float]:
    """Give the merge distance and the distinct distance: as set, or by how far embeddings of one object lie apart."""
    merge, distinct = settings.merge_distance, settings.distinct_distance
    return (
        MERGE_FACTOR * object_distance if merge is None else merge,
        2 * object_distance if distinct is None else distinct,
    )


def went_by(settings: StitchingSettings, object_distance: float, *, final: bool) -> dict[str, float]:
    """Name the thresholds that a decision goes by."""
    if final:
        return {"min_overlap": settings.min_overlap}
    return dict(zip(("merge_distance", "distinct_distance"), distances(settings, object_distance), strict=True))


def decide(
    fragments: Fragments,
    edges: Edges,
    settings: StitchingSettings,
    *,
    final: bool,
    folder: Path,
    object_distance: float = OBJECT_DISTANCE,
    batch: int = BATCH,
) -> NDArray[Any]:
    """Give the smallest fragment of the segment that each fragment belongs to.

    Parameters
    ----------
    fragments, edges : Fragments, Edges
        Those of the whole volume; edges as `load_overlaps` gives them where fragments are final objects.
    settings : StitchingSettings
        Thresholds.
    final : bool
        Whether fragments are final objects, which are joined by what two blocks see in one place.
    folder : Path
        Where a decision that is too large for memory keeps what it has decided so far.
    object_distance : float
        How far embeddings of one object lie apart; what is not set follows from it.
    batch : int
        Fragments that are decided at once; never changes the result.
    """
    if final:
        return join_overlapping(edges, len(fragments.voxels), settings.min_overlap)
    merge_distance, distinct_distance = distances(settings, object_distance)
    thresholds: dict[str, Any] = {
        "merge_distance": merge_distance,
        "small_voxels": settings.small_voxels,
        "small_distance": settings.small_distance,
    }
    if len(fragments.voxels) > batch:
        path = folder / "apart"
        graph = Graph(
            edges.pairs, edges.contacts, distinct_pairs(fragments, edges, distinct_distance, path),
            fragments.weights, fragments.sums,
        )  # fmt: skip
        name = digest(settings.model_dump(mode="json"), object_distance)
        return decide_islands(graph, folder / name, batch=batch, **thresholds)
    distinct = distinct_pairs(fragments, edges, distinct_distance)
    return agglomerate(edges.pairs, edges.contacts, distinct, fragments.weights, fragments.sums, **thresholds)


def join_overlapping(edges: Edges, count: int, min_overlap: float) -> NDArray[np.int64]:
    """Join final objects that two blocks saw in one place, the surest first; what one block saw apart stays apart."""
    joining = ~edges.same_block & (edges.contacts >= min_overlap * SHARES)
    order = np.concatenate(
        [np.flatnonzero(edges.same_block), np.flatnonzero(joining)[np.argsort(-edges.contacts[joining], kind="stable")]]
    )
    first, second = np.ascontiguousarray(edges.pairs[order].T)
    roots: NDArray[np.int64] = mutex_clusters(first, second, edges.same_block[order], count)
    return roots


def distinct_pairs(fragments: Fragments, edges: Edges, distance: float, path: Path | None = None) -> NDArray[np.bool_]:
    """Tell which pairs one block saw as different objects: fragments of one object may lie apart, but not far."""
    column = Column(path, np.bool_)
    for start in range(0, len(edges.pairs), CHUNK):
        part = slice(start, start + CHUNK)
        first, second = (
            fragments.sums[nodes] / np.maximum(fragments.weights[nodes], 1)[:, None] for nodes in edges.pairs[part].T
        )
        column.add(edges.same_block[part] & (np.linalg.norm(first - second, axis=1) > distance))
    return column.array()


def number_segments(
    roots: NDArray[Any], voxels: NDArray[np.int64], min_voxels: int
) -> NDArray[np.unsignedinteger[Any]]:
    """Give every fragment its segment's id: 1..n in the order of the first fragments, 0 for what is too small."""
    # There are no more segments than fragments.
    ids: NDArray[np.unsignedinteger[Any]] = np.zeros(len(roots), "uint32" if len(roots) < 2**32 else "uint64")
    number_roots(roots, voxels, max(1, min_voxels), ids)
    return ids
