"""Stage `stitch`: one global decision, on tables alone, about which fragments are one object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.ledger import Records, Tables
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.grid import BlockGrid, triple
from spoco_blocks.kernels.agglomeration import agglomerate
from spoco_blocks.kernels.faces import face_contacts
from spoco_blocks.kernels.mutex import mutex_clusters
from spoco_blocks.settings.jobs import StitchJob, digest
from spoco_blocks.stages.cluster import BEYOND
from spoco_blocks.stages.plan import Plan

VERSION = 1
AXES = "zyx"
SHARES = 1000

Compare = Callable[[Tables, Tables, int], tuple[NDArray[np.uint32], NDArray[np.int64]]]


@dataclass(frozen=True)
class Fragments:
    """All fragments of a volume; entry 0 stands for the background.

    Attributes
    ----------
    offsets : (blocks + 1,) int64
        Local fragment i of block b is fragment ``offsets[b] + i``.
    weights : (n,) int64
        Voxels behind each mean.
    sums : (n, c) float64
        Sums of embeddings in the frame of the volume.
    voxels : (n,) int64
        Voxels written.
    start, stop, positions : (n, 3) int64
        Boxes, and sums of positions.
    """

    offsets: NDArray[np.int64]
    weights: NDArray[np.int64]
    sums: NDArray[np.float64]
    voxels: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    positions: NDArray[np.int64]


@dataclass(frozen=True)
class Edges:
    """Which fragments touch: (m, 2) pairs, (m,) faces or shares between them, (m,) whether one block saw both."""

    pairs: NDArray[np.int64]
    contacts: NDArray[np.int64]
    same_block: NDArray[np.bool_]


def run_stitch(job: StitchJob, layout: Layout) -> Manifest:
    """Decide, and write the lookup table and the table of objects."""
    results = layout.segmentation(job.segmentation)
    plan = Plan.read(Manifest.read(results.manifest("plan")))
    clustered = Manifest.read(results.manifest("cluster", 0))
    inputs = {"cluster": clustered.digest}
    watch = Stopwatch("stitch", digest("stitch", VERSION, job.model_dump(mode="json"), inputs), inputs)
    records = Records(results.ledger("cluster"), clustered.result["records"], len(plan.cluster_grid))
    fragments, settings = load_fragments(records), job.stitching
    if clustered.result["fragments_are_final"]:
        edges = load_overlaps(records, plan.cluster_grid, planar=plan.planar)
        roots = join_overlapping(edges, len(fragments.voxels), settings.min_overlap)
    else:
        edges = load_edges(records, plan.cluster_grid, planar=plan.planar)
        roots = agglomerate(
            edges.pairs,
            edges.contacts,
            distinct_pairs(fragments, edges, settings.distinct_distance),
            fragments.weights,
            fragments.sums,
            merge_distance=settings.merge_distance,
            small_voxels=settings.small_voxels,
            small_distance=settings.small_distance,
        )
    lookup = number_segments(roots, fragments.voxels, settings.min_voxels)
    np.save(results.lookup, lookup)
    np.save(results.offsets, fragments.offsets)
    table = object_table(fragments, lookup, plan)
    pq.write_table(table, results.objects)
    result = {
        "job": job.model_dump(mode="json"),
        "fragments": len(lookup) - 1,
        "edges": len(edges.pairs),
        "segments": table.num_rows,
    }
    return watch.finish(results.manifest("stitch"), result)


def fragment_offsets(records: Records) -> NDArray[np.int64]:
    """Count the fragments before each block: ids follow from block and local number, whatever ran when."""
    counts = [len(record["voxels"]) for record in records]
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def load_fragments(records: Records) -> Fragments:
    """Join the fragment tables of all blocks."""
    names = ("weights", "sums", "voxels", "start", "stop", "positions")
    tables = [[record[name] for name in names] for record in records]
    joined = [np.concatenate(columns) for columns in zip(*tables, strict=True)]
    padded = [np.concatenate([np.zeros((1, *column.shape[1:]), column.dtype), column]) for column in joined]
    offsets = np.concatenate([[0], np.cumsum([len(table[0]) for table in tables])])
    return Fragments(offsets.astype(np.int64), *padded)


def load_edges(records: Records, grid: BlockGrid, *, planar: bool) -> Edges:
    """Join the contacts within blocks and across their faces; images of a planar volume have none."""
    return _load(records, grid, planar, _facing)


def load_overlaps(records: Records, grid: BlockGrid, *, planar: bool) -> Edges:
    """Join the contacts within blocks and, across faces, what two blocks make of the same voxels (in 1/1000)."""
    return _load(records, grid, planar, _overlapping)


def _load(records: Records, grid: BlockGrid, planar: bool, compare: Compare) -> Edges:
    offsets = fragment_offsets(records)
    pairs, contacts, same = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, bool)]
    for block, record in enumerate(records):
        pairs.append(record["pairs"].astype(np.int64) + offsets[block])
        contacts.append(record["contacts"])
        same.append(np.ones(len(record["contacts"]), bool))
        for axis, other in _following(grid, block, planar=planar):
            found, counts = compare(record, records[other], axis)
            pairs.append(found.astype(np.int64) + np.array([offsets[block], offsets[other]]))
            contacts.append(counts)
            same.append(np.zeros(len(counts), bool))
    return Edges(np.concatenate(pairs), np.concatenate(contacts), np.concatenate(same))


def _following(grid: BlockGrid, block: int, *, planar: bool) -> Iterator[tuple[int, int]]:
    position = grid.position(block)
    for axis in range(1 if planar else 0, 3):
        following = triple(p + (a == axis) for a, p in enumerate(position))
        if following[axis] < grid.counts[axis]:
            yield axis, grid.index(following)


def _facing(record: Tables, following: Tables, axis: int) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Count the voxel faces between the fragments of two blocks."""
    return face_contacts(record[f"{AXES[axis]}1"], following[f"{AXES[axis]}0"])


def _overlapping(record: Tables, following: Tables, axis: int) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Compare the following block's first plane with what the block before it sees there, in its halo.

    Notes
    -----
    The share is that of the smaller of the two sections: an object may end at the border in one of the two views.
    """
    ours, theirs = record[BEYOND[axis]], following[f"{AXES[axis]}0"]
    pairs, counts = face_contacts(ours, theirs)
    sections = [np.bincount(plane.reshape(-1)) for plane in (ours, theirs)]
    smaller = np.minimum(sections[0][pairs[:, 0]], sections[1][pairs[:, 1]])
    return pairs, counts * SHARES // np.maximum(smaller, 1)


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


def object_table(fragments: Fragments, lookup: NDArray[np.unsignedinteger[Any]], plan: Plan) -> pa.Table:
    """Sum the fragments of each segment into one row."""
    count = int(lookup.max(initial=0))
    voxels = np.bincount(lookup, fragments.voxels, count + 1)[1:].astype(np.int64)
    start = np.full((count + 1, 3), np.iinfo(np.int64).max)
    stop = np.zeros((count + 1, 3), np.int64)
    filled = fragments.voxels > 0
    np.minimum.at(start, lookup[filled], fragments.start[filled])
    np.maximum.at(stop, lookup[filled], fragments.stop[filled])
    start, stop = start[1:], stop[1:]
    positions = np.stack([np.bincount(lookup, fragments.positions[:, a], count + 1)[1:] for a in range(3)], 1)
    centroid = (positions / np.maximum(voxels, 1)[:, None] + 0.5) * np.array(plan.voxel_size_nm)
    bounded = slice(1, 3) if plan.planar else slice(0, 3)
    touches = (start[:, bounded] == 0).any(1) | (stop[:, bounded] == np.array(plan.shape)[bounded]).any(1)
    columns = {"id": np.arange(1, count + 1, dtype=np.uint64), "voxels": voxels}
    columns |= {f"{AXES[a]}0": start[:, a] for a in range(3)} | {f"{AXES[a]}1": stop[:, a] for a in range(3)}
    columns |= {f"centroid_{AXES[a]}_nm": centroid[:, a] for a in range(3)}
    columns["fragments"] = np.bincount(lookup, minlength=count + 1)[1:]
    return pa.table({**columns, "touches_border": touches})
