"""The decision: which fragments are one object. Tables in, table out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.clustering.find_fragments import MERGE_FACTOR
from spoco_blocks.clustering.modes import OBJECT_DISTANCE
from spoco_blocks.errors import ResourceError
from spoco_blocks.kernels.agglomeration import agglomerate
from spoco_blocks.kernels.islands import add_sizes, number_roots
from spoco_blocks.kernels.mutex import mutex_clusters
from spoco_blocks.settings.jobs import digest
from spoco_blocks.settings.segmentation import StitchingSettings
from spoco_blocks.stages.stitch.graph import Graph
from spoco_blocks.stages.stitch.islands import BATCH, decide_islands
from spoco_blocks.stages.stitch.mapped import Workspace, parts
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
    for part in parts(len(edges.pairs), edges.pairs, edges.same_block, fragments.weights, fragments.sums):
        first, second = (
            fragments.sums[nodes] / np.maximum(fragments.weights[nodes], 1)[:, None] for nodes in edges.pairs[part].T
        )
        column.add(edges.same_block[part] & (np.linalg.norm(first - second, axis=1) > distance))
    return column.array()


def number_segments(
    roots: NDArray[Any],
    voxels: NDArray[np.int64],
    min_voxels: int,
    folder: Path | None = None,
    dtype: Any = np.uint32,
) -> NDArray[Any]:
    """Give every fragment its segment's id: 1..n in the order of the first fragments, 0 for what is too small.

    Parameters
    ----------
    roots : (n,) int
        The smallest fragment of the segment of every fragment.
    voxels : (n,) int64
        Voxels of every fragment.
    min_voxels : int
        Voxels that a segment must have.
    folder : Path, optional
        Where sizes and ids lie, in files that are mapped; by default in memory, 12 bytes per fragment.
    dtype : data type
        Of the ids: that of the store of segments.

    Raises
    ------
    ResourceError
        When there are more segments than the data type can tell apart.
    """
    space = Workspace(folder, roots, voxels)
    sizes, ids = space.zeros("sizes", np.int64, roots.shape), space.zeros("ids", dtype, roots.shape)
    number = 0
    for part in space.parts(len(roots)):
        add_sizes(roots, voxels, sizes, part.start, part.stop)
    for part in space.parts(len(roots)):
        number = number_roots(roots, sizes, max(1, min_voxels), ids, number, part.start, part.stop)
    if number > np.iinfo(ids.dtype).max:
        raise ResourceError(
            f"There are {number} segments, but ids are {ids.dtype}, which tells {np.iinfo(ids.dtype).max} apart. Raise "
            "stitching.min_voxels, or segment the volume in parts."
        )
    return ids
