"""Stage `cluster`: fragments of each block, and what stitching needs to know of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.clustering import Affinities, Context, Method, Modes, Mutex
from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout, SegmentationResults
from spoco_blocks.engine.ledger import Tables
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.engine.runner import Blocks, run
from spoco_blocks.errors import CheckpointError, GridError
from spoco_blocks.grid import Block, BlockGrid
from spoco_blocks.kernels.gaps import number_gaps
from spoco_blocks.settings.clustering_jobs import ClusterJob
from spoco_blocks.settings.jobs import digest
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.calibrate import Calibration
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.exact.cluster import ClusterExactly
from spoco_blocks.stages.exact.placed import PlacedSeeds
from spoco_blocks.stages.exact.seeds import exact_grid
from spoco_blocks.stages.measured import intensities, keep_inner, measure, on_lattice, unsought
from spoco_blocks.stages.output import Output, PredictedOutput
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.rehearsal import rehearsed_block, rehearsed_embeddings
from spoco_blocks.stages.sources import open_source

# Labels and work arrays of a voxel, with affinities and without: measured where all voxels are foreground.
MUTEX_BYTES, OTHER_BYTES, OTHER_CHANNEL_BYTES = 100, 110, 8
VERSION = 6


@lru_cache(maxsize=2)
def open_calibration(results: SegmentationResults, identity: str) -> tuple[Plan, Calibration | None]:
    """Read plan and calibration once per process; `identity` makes sure that they are those of this run."""
    plan = Plan.read(Manifest.read(results.manifest("plan")))
    return plan, Calibration.read(results, plan)


@dataclass(frozen=True)
class ClusterBlock:
    """Cluster the outer box, keep the inner labels, measure them."""

    results: SegmentationResults
    identity: str
    method: Method
    source: Embedded
    fragments: Source
    predicted: PredictedOutput
    gaps: bool
    planar: bool

    def __call__(self, block: Block) -> Tables:
        """Cluster one block."""
        return self.finish(block, self.source.output.read(block.outer))

    def finish(self, block: Block, output: Output) -> Tables:
        """Cluster one block of whose outer box the network's output is given."""
        inner, pieces, tables = self.clustered(block, output)
        open_source(self.fragments).write(block.inner, inner)
        return tables | {"intensities": intensities(pieces, self.predicted, block)}

    def clustered(
        self, block: Block, output: Output
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32], dict[str, NDArray[Any]]]:
        """Give the fragments of the inner box, without and with gaps, and what is measured of these."""
        plan, calibration = open_calibration(self.results, self.identity)
        embeddings, foreground = self.source.understand(output)
        context = Context() if calibration is None else calibration.context(block.outer, self.source)
        if output.affinities is not None:
            offsets = np.array(plan.offsets, np.int64)
            context = replace(context, affinities=Affinities(output.affinities, offsets, plan.neighbours))
        if output.other is not None:
            context = replace(context, other=self.source.placed(output.other))
        outer = block.outer
        cut = tuple((a > 0, b < end) for a, b, end in zip(outer.start, outer.stop, plan.shape, strict=True))
        context = replace(context, smallest_voxels=plan.smallest_voxels, cut=cut, step=plan.step)
        return self.fragments_of(block, embeddings, foreground, output.foreground, context)

    def fragments_of(
        self,
        block: Block,
        embeddings: NDArray[np.float32],
        foreground: NDArray[np.bool_],
        probability: NDArray[np.uint8],
        context: Context,
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32], dict[str, NDArray[Any]]]:
        """Label the outer box; give labels of the inner one, without and with gaps, and what is measured of these."""
        found, coreless = self.find(embeddings, foreground, context)
        labels, inner, kept = keep_inner(found, block)
        tables = {"coreless": coreless[kept], "lattice": on_lattice(labels, block, planar=self.planar)}
        pieces = inner
        if self.gaps:
            pieces = number_gaps(inner, planar=self.planar)
            tables["unsought"] = unsought(pieces, probability[block.inner_local.slices])
        return inner, pieces, tables | measure(labels, pieces, embeddings, probability, block, self.source)

    def warm(self) -> None:
        """Cluster something small."""
        output, block = self.source.output, rehearsed_block()
        embeddings, foreground = rehearsed_embeddings(output.channels)
        # Low enough that only what does not change at all is a core.
        context = Context(0.01, 10.0, np.array([[0], [4]], np.float32).repeat(output.channels, axis=1))
        if output.offsets:
            offsets = np.concatenate([np.eye(3, dtype=np.int64), 3 * np.eye(3, dtype=np.int64)])
            values = np.full((len(offsets), *foreground.shape), 200, np.uint8)
            context = replace(context, affinities=Affinities(values, offsets, 3))
        if output.networks == 2:
            context = replace(context, other=embeddings)
        self.fragments_of(block, embeddings, foreground, foreground.astype(np.uint8), context)

    def find(
        self, embeddings: NDArray[np.float32], foreground: NDArray[np.bool_], context: Context
    ) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """Label an array, and say which labels have no core; only `modes` looks for cores."""
        if not foreground.any():
            return np.zeros(foreground.shape, np.uint32), np.zeros(1, np.bool_)
        if isinstance(self.method, Modes):
            return self.method.find(embeddings, foreground, context)
        labels = self.method(embeddings, foreground, context)
        return labels, np.zeros(int(labels.max(initial=0)) + 1, np.bool_)

    def memory_bytes(self, block: Block) -> int:
        """Getting the output, or clustering it: as it is stored, in float32, labels and work arrays."""
        output, voxels = self.source.output, block.outer.size
        other = OTHER_BYTES + OTHER_CHANNEL_BYTES * output.channels
        stored = voxels * (2 * output.channels * output.networks + 1 + output.offsets)
        work = voxels * (4 * output.channels * output.networks + (MUTEX_BYTES if output.offsets else other))
        return max(output.memory_bytes(block.outer), stored + work)


@dataclass(frozen=True)
class StreamingClusterBlock(ClusterBlock):
    """The same in two halves, of which a GPU can do the first."""

    def feed(self, block: Block) -> Output:
        """Predict the outer box."""
        return self.source.output.read(block.outer)


def check_affinities(plan: Plan) -> None:
    """Check that the model predicts what the method needs.

    Raises
    ------
    CheckpointError
        When it has no affinity head.
    """
    if not plan.offsets:
        raise CheckpointError(
            f"clustering kind 'mutex' needs affinities, which {plan.predicted.checkpoint} does not predict; train a "
            "model with network.affinities: true, or choose clustering kind 'modes'."
        )


def check_halo(plan: Plan, method: Method) -> None:
    """Check that neighbouring blocks see common voxels, where stitching needs them.

    Raises
    ------
    GridError
        When they do not.
    """
    apart = [h == 0 and c > 1 for h, c in zip(plan.cluster_halo, plan.cluster_grid.counts, strict=True)]
    if not method.fragments and any(apart[1 if plan.planar else 0 :]):
        raise GridError(
            f"clustering kind '{method.kind}' gives final objects, which are stitched by what two blocks make of "
            "the same voxels; set blocks.halo_voxels to at least 1 (24 is the default)."
        )


def cluster_task(
    plan: Plan, results: SegmentationResults, identity: str, method: Method, threshold: float | None, *, gaps: bool
) -> ClusterBlock:
    """Make the task of a block.

    Raises
    ------
    CheckpointError
        When the method needs affinities, which the model does not predict.
    """
    needs_affinities = isinstance(method, Mutex)
    if needs_affinities:
        check_affinities(plan)
    return (StreamingClusterBlock if plan.stream else ClusterBlock)(
        results=results,
        identity=identity,
        method=method,
        source=plan.embedded(results, threshold, affinities=needs_affinities),
        fragments=Source(uri=results.fragments),
        predicted=plan.predicted,
        gaps=gaps,
        planar=plan.planar,
    )


def task_and_grid(
    plan: Plan, results: SegmentationResults, identity: str, job: ClusterJob
) -> tuple[ClusterBlock | ClusterExactly, BlockGrid]:
    """Make the task of a block, and give the blocks with the margins that it needs."""
    method, threshold = plan.method(job.clustering), plan.threshold(job.foreground_threshold)
    if not (job.exact and isinstance(method, Modes)):
        return cluster_task(plan, results, identity, method, threshold, gaps=job.gaps), plan.cluster_grid
    grid = exact_grid(plan, method)
    seeds = PlacedSeeds(Source(uri=results.seeds), results.pieces, grid, identity)
    source, fragments = plan.embedded(results, threshold), Source(uri=results.fragments)
    task = ClusterExactly(source, method, seeds, fragments, plan.predicted, plan.shape, job.gaps, plan.planar)
    return task, grid


def run_cluster(job: ClusterJob, layout: Layout, execution: Execution, shard: int, shards: int) -> Manifest:
    """Cluster one shard of the blocks."""
    results = layout.segmentation(job.segmentation)
    plan = Plan.read(Manifest.read(results.manifest("plan")))
    inputs = {"calibrate": Manifest.read(results.manifest("calibrate")).digest}
    watch = Stopwatch("cluster", digest("cluster", VERSION, job.model_dump(mode="json"), inputs), inputs)
    method, threshold = plan.method(job.clustering), plan.threshold(job.foreground_threshold)
    check_halo(plan, method)
    task, grid = task_and_grid(plan, results, watch.identity, job)
    blocks = Blocks(grid, results.ledger("cluster"), watch.identity, shard, shards)
    summary = run(task, blocks, execution)
    result = {
        "job": job.model_dump(mode="json"),
        "records": blocks.record_identity,
        "kind": method.kind,
        "foreground_threshold": threshold,
        "fragments_are_final": not method.fragments,
        "gaps": job.gaps,
        "exact": job.exact,
        "least": max(1, method.min_core_voxels) if isinstance(method, Modes) else 0,
        **summary.__dict__,
    }
    return watch.finish(results.manifest("cluster", shard), result)
