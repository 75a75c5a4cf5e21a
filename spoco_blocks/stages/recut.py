"""Stage `recut`: how much the cut into blocks shows, by a few blocks that lie across the seams. No truth needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout, SegmentationResults
from spoco_blocks.engine.ledger import Records, Tables
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.engine.runner import Blocks, run
from spoco_blocks.grid import Block, BlockGrid, Box, triple
from spoco_blocks.kernels.components import equal_components
from spoco_blocks.kernels.contingency import contingency
from spoco_blocks.kernels.lookup import apply_lookup
from spoco_blocks.settings.clustering_jobs import RecutJob
from spoco_blocks.settings.jobs import digest
from spoco_blocks.settings.sections import Source
from spoco_blocks.settings.segmentation import StitchingSettings
from spoco_blocks.stages.cluster import ClusterBlock, task_and_grid
from spoco_blocks.stages.exact.cluster import ClusterExactly, even
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.sources import open_source
from spoco_blocks.stages.stitch.decision import decide
from spoco_blocks.stages.stitch.mapped import open_table
from spoco_blocks.stages.stitch.tables import Edges, Fragments

VERSION = 1
# Blocks that are looked at.
SAMPLED = 8
# Segments, what is found and both as pieces, for a voxel that is compared.
COMPARED_BYTES = 24


@dataclass(frozen=True)
class RecutBlock:
    """Cluster a block that is moved by half its extent, and compare it with the segmentation.

    Attributes
    ----------
    task : ClusterBlock or ClusterExactly
        How blocks are clustered.
    grid : BlockGrid
        The blocks.
    segments : Source
        The segmentation.
    stitching : StitchingSettings
        How fragments are joined within the block.
    object_distance : float
        How far embeddings of one object lie apart.
    pieces : Path or None
        Segments of the pieces of the volume, where no cut must show.
    identity : str
        Digest of this run.
    """

    task: ClusterBlock | ClusterExactly
    grid: BlockGrid
    segments: Source
    stitching: StitchingSettings
    object_distance: float
    pieces: Path | None
    identity: str

    def __call__(self, block: Block) -> Tables:
        """Compare one block."""
        moved = across(self.grid, block, planar=self.task.planar)
        inner, _, tables = self.task.clustered(moved, self.task.source.output.read(moved.outer))
        written = open_source(self.segments).read(moved.inner)
        if self.pieces is None:
            # Parts that are connected elsewhere count for themselves on both sides.
            found, written = equal_components(self.objects(inner, tables))[0], equal_components(written)[0]
            compared = (found > 0) & (written > 0)
        else:
            ids = np.concatenate([np.zeros(1, np.int64), tables["ids"]])
            found = apply_lookup(inner, open_table(self.pieces, self.identity)[ids])
            # Neither what no seed grew to, nor background where some of it was filled afterwards.
            compared = (ids[inner] > 0) | ((inner == 0) & (self.stitching.fill_holes_voxels == 0))
        pairs, counts = contingency(np.where(compared, found, 0), np.where(compared, written, 0))
        differing = -1 if self.pieces is None else np.count_nonzero(compared & (found != written))
        return {"pairs": pairs, "counts": counts, "differing": np.array([differing])}

    def objects(self, inner: NDArray[np.uint32], tables: Tables) -> NDArray[Any]:
        """Decide which fragments of the block are one object, as `stitch` would of a volume of one block."""
        if not self.task.method.fragments:
            return inner
        count, channels = len(tables["weights"]), tables["sums"].shape[1]
        weights, voxels = (np.concatenate([[0], tables[name][:count]]) for name in ("weights", "voxels"))
        fragments = Fragments(
            np.array([0, count]), weights, np.concatenate([np.zeros((1, channels)), tables["sums"]]), voxels
        )
        edges = Edges(tables["pairs"].astype(np.int64), tables["contacts"], np.ones(len(tables["pairs"]), np.bool_))
        roots = decide(
            fragments, edges, self.stitching, final=False, folder=Path(), object_distance=self.object_distance,
            batch=count + 1,
        )  # fmt: skip
        return apply_lookup(inner, roots.astype(np.uint32))

    def warm(self) -> None:
        """Do what the task does first."""
        self.task.warm()

    def memory_bytes(self, block: Block) -> int:
        """What clustering needs of a block of full size, and the segments."""
        return (
            self.task.memory_bytes(across(self.grid, block, planar=self.task.planar))
            + block.inner.size * COMPARED_BYTES
        )


def across(grid: BlockGrid, block: Block, *, planar: bool) -> Block:
    """Move a block by half its extent along each axis along which others follow, so that it lies across their faces."""
    start, stop = list(block.inner.start), list(block.inner.stop)
    for axis in range(1 if planar else 0, 3):
        if block.inner.stop[axis] < grid.shape[axis]:
            start[axis] += grid.block_shape[axis] // 2
            stop[axis] = min(start[axis] + grid.block_shape[axis], grid.shape[axis])
    inner = Box(triple(start), triple(stop))
    return even(Block(block.index, inner, inner.grown(grid.halo, Box.of_shape(grid.shape))), planar=planar)


def sampled(grid: BlockGrid, *, planar: bool) -> tuple[int, ...]:
    """Draw blocks that others follow along every axis that is cut."""
    ranges = [
        range(count) if count == 1 or (planar and axis == 0) else range(count - 1)
        for axis, count in enumerate(grid.counts)
    ]
    if max(len(r) for r in ranges) == 0 or max(grid.counts[1 if planar else 0 :]) == 1:
        return ()
    places = np.random.default_rng(0).permutation(int(np.prod([len(r) for r in ranges])))[:SAMPLED]
    corners = np.unravel_index(places, [len(r) for r in ranges])
    return tuple(sorted(grid.index(triple(int(p) for p in place)) for place in zip(*corners, strict=True)))


def chosen_blocks(plan: Plan, grid: BlockGrid) -> tuple[int, ...]:
    """Choose the blocks that are looked at; none where they would have to be predicted anew."""
    return () if plan.stream else sampled(grid, planar=plan.planar)


def run_recut(job: RecutJob, layout: Layout, execution: Execution) -> Manifest:
    """Cluster a few blocks across the seams, and say how well they agree with the segmentation."""
    results = layout.segmentation(job.segmentation)
    plan = Plan.read(Manifest.read(results.manifest("plan")))
    relabelled, clustered = Manifest.read(results.manifest("relabel", 0)), Manifest.read(results.manifest("cluster", 0))
    inputs = {"relabel": relabelled.digest}
    watch = Stopwatch("recut", digest("recut", VERSION, job.model_dump(mode="json"), inputs), inputs)
    task, grid = task_and_grid(plan, results, watch.identity, job.cluster())
    chosen = chosen_blocks(plan, grid)
    result: dict[str, Any] = {"job": job.model_dump(mode="json"), "blocks": len(chosen)}
    if chosen:
        pieces = None
        if isinstance(task, ClusterExactly):
            records = Records(results.ledger("cluster"), clustered.result["records"], len(grid))
            pieces = write_segments_of_pieces(records, results)
        recut = RecutBlock(
            task, grid, Source(uri=results.segments), job.stitching, plan.object_distance, pieces, watch.identity
        )
        blocks = Blocks(grid, results.ledger("recut"), watch.identity, only=chosen)
        result |= run(recut, blocks, execution).__dict__
        records = Records(blocks.folder, blocks.record_identity, 0)
        result |= agreement([records.of(index) for index in chosen])
    return watch.finish(results.manifest("recut"), result)


def write_segments_of_pieces(records: Records, results: SegmentationResults) -> Path:
    """Write down which segment each piece of the volume is in."""
    lookup, offsets = (np.load(path, mmap_mode="r") for path in (results.lookup, results.offsets))
    segments = np.zeros(len(np.load(results.pieces / "pieces.npy", mmap_mode="r")), lookup.dtype)
    for block, record in enumerate(records):
        ids = record["ids"]
        segments[ids] = lookup[offsets[block] + 1 : offsets[block] + 1 + len(ids)]
    segments[0] = 0
    path = results.pieces / "segments.npy"
    np.save(path, segments)
    return path


def agreement(records: list[Tables]) -> dict[str, Any]:
    """Give the adjusted Rand index of all blocks together, and that of the block that agrees least."""
    each, parts = [], []
    for number, record in enumerate(records):
        pairs, counts = record["pairs"], record["counts"]
        kept = (pairs > 0).any(axis=1)
        if kept.any():
            each.append(adjusted_rand(pairs[kept], counts[kept]))
            parts.append((pairs[kept] + np.uint64(number << 48) * (pairs[kept] > 0), counts[kept]))
    if not parts:
        return {}
    pairs, counts = (np.concatenate(part) for part in zip(*parts, strict=True))
    differing = sum(int(record["differing"][0]) for record in records)
    return {
        "recut_ari": adjusted_rand(pairs, counts), "least_recut_ari": min(each), "compared_voxels": int(counts.sum()),
        "differing_voxels": None if differing < 0 else differing,
    }  # fmt: skip


def adjusted_rand(pairs: NDArray[np.uint64], counts: NDArray[np.int64]) -> float:
    """Give the adjusted Rand index of a contingency table (Hubert and Arabie, J. Classif. 2, 1985)."""
    joint = counts.astype(np.float64)
    total = joint.sum()
    both = (joint * (joint - 1)).sum()
    sides = []
    for labels in pairs.T:
        sizes = np.bincount(np.unique(labels, return_inverse=True)[1], joint)
        sides.append((sizes * (sizes - 1)).sum())
    chance, most = sides[0] * sides[1] / max(total * (total - 1), 1), (sides[0] + sides[1]) / 2
    return 1.0 if most == chance else float((both - chance) / (most - chance))
