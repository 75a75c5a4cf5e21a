"""Stage `estimate`: what the blocks of a segmentation will cost, from a few samples, before any is run."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path

from spoco_blocks.clustering import Modes
from spoco_blocks.engine.layout import Layout, SegmentationResults
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.engine.runner import process_mb
from spoco_blocks.errors import ResourceError
from spoco_blocks.grid import Block, BlockGrid, triple
from spoco_blocks.settings.clustering_jobs import EstimateJob
from spoco_blocks.settings.jobs import digest
from spoco_blocks.stages.calibrate import SeekModes
from spoco_blocks.stages.cluster import ClusterBlock, cluster_task
from spoco_blocks.stages.embed import EmbedBlock
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.exact.costs import CLUSTERING, SEEDING, pass_memory
from spoco_blocks.stages.exact.find import check_exact
from spoco_blocks.stages.exact.seeds import exact_grid
from spoco_blocks.stages.output import PredictedOutput, StoredOutput
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.plan.samples import Costs, measure_costs
from spoco_blocks.stages.relabel import RELABEL_BYTES
from spoco_blocks.volumes import is_remote, stored_bytes

VERSION = 2
# Of the free disk, what the stores may take: records, logs and others need some as well.
DISK_SHARE = 0.95


@dataclass(frozen=True)
class StageEstimate:
    """What one stage will cost.

    Attributes
    ----------
    stage : str
        Its name.
    blocks, jobs : int
        Blocks, and jobs that share them.
    work_s : float
        Seconds of all blocks together, one after the other, on a processor (or GPU) like this one.
    gpu : bool
        Whether the work is the network's.
    memory_mb : int
        What a process needs for one block, in MiB.
    disk_bytes, files : int
        What the stage leaves.
    """

    stage: str
    blocks: int
    jobs: int
    work_s: float
    gpu: bool
    memory_mb: int
    disk_bytes: int
    files: int


def run_estimate(job: EstimateJob, layout: Layout, memory_mb: int | None) -> Manifest:
    """Estimate a segmentation that is planned.

    Raises
    ------
    ResourceError
        When the disk or the memory cannot hold it.
    """
    results = layout.segmentation(job.segmentation)
    planned = Manifest.read(results.manifest("plan"))
    inputs = {"plan": planned.digest}
    watch = Stopwatch("estimate", digest("estimate", VERSION, job.model_dump(mode="json"), inputs), inputs)
    plan = Plan.read(planned)
    stages, costs = estimate(plan, job, results)
    refuse(stages, plan, results, memory_mb)
    found = {"stages": [asdict(stage) for stage in stages], "samples": asdict(costs)}
    return watch.finish(results.manifest("estimate"), {"job": job.model_dump(mode="json"), **found})


def estimate(plan: Plan, job: EstimateJob, results: SegmentationResults) -> tuple[list[StageEstimate], Costs]:
    """Predict and cluster samples, and go from them to the whole volume.

    Raises
    ------
    SettingsError
        When stitching is to be exact, which the method that the model suggests cannot be.
    """
    method = plan.method(job.clustering)
    check_exact(method, exact=job.exact)
    costs = measure_costs(plan, method, job.foreground_threshold)
    task = cluster_task(plan, results, "", method, job.foreground_threshold, gaps=False)
    whole = _Whole(plan, costs, task, job.shards)
    stages = [] if plan.stream else [whole.embed(plan.output(results, affinities=True))]
    stages += [whole.calibrate()] if isinstance(method, Modes) else []
    stages += [whole.cluster(), whole.relabel(), whole.pyramid()]
    if job.exact and isinstance(method, Modes):
        stages = [in_passes(stage, plan, costs, results, task.source, method) for stage in stages]
    return stages, costs


def in_passes(
    stage: StageEstimate, plan: Plan, costs: Costs, results: SegmentationResults, source: Embedded, method: Modes
) -> StageEstimate:
    """Give what a stage costs where stitching is exact: more passes, with wider margins, and a store of seeds."""
    share = 1 - costs.empty / max(1, costs.drawn)
    once_s = share * outer_voxels(exact_grid(plan, method)) * costs.cluster_s
    for_seeds, for_voxels = pass_memory(plan, results, source, method)
    if stage.stage == "cluster":
        return replace(stage, work_s=CLUSTERING * once_s, memory_mb=_mb(for_voxels))
    if stage.stage == "calibrate":
        return replace(
            stage, work_s=stage.work_s + SEEDING * once_s, memory_mb=max(stage.memory_mb, _mb(for_seeds)),
            disk_bytes=round(share * prod(plan.shape) * costs.labels_bytes),
            files=max(1, round(share * len(plan.cluster_grid))),
        )  # fmt: skip
    return stage


@dataclass(frozen=True)
class _Whole:
    """From costs for a voxel to those of all blocks."""

    plan: Plan
    costs: Costs
    task: ClusterBlock
    shards: int

    @property
    def share(self) -> float:
        """Part of the blocks in which there is something to segment."""
        return 1 - self.costs.empty / max(1, self.costs.drawn)

    @property
    def voxels(self) -> float:
        """Voxels of the inner boxes of those blocks."""
        return self.share * prod(self.plan.shape)

    @property
    def block(self) -> Block:
        """A block that the volume's edge does not cut, where there is one."""
        grid = self.plan.cluster_grid
        return grid.block(grid.index(triple(n // 2 for n in grid.counts)))

    def prediction_s(self, grid: BlockGrid) -> float:
        """Seconds that the network takes for all outer boxes of a grid."""
        halo = triple(a + b for a, b in zip(grid.halo, self.plan.network_halo, strict=True))
        return self.share * outer_voxels(BlockGrid(grid.shape, grid.block_shape, halo)) * self.costs.predict_s

    def stage(
        self, name: str, seconds: float, memory: int, disk: float = 0, stores: int = 0, *, gpu: bool = False
    ) -> StageEstimate:
        """Describe a stage that works through the plan's blocks."""
        blocks = len(self.plan.cluster_grid)
        files = stores * max(1, round(self.share * blocks))
        return StageEstimate(
            name, blocks, min(self.shards, blocks), seconds, gpu, _mb(memory, network=gpu), round(disk), files
        )

    def embed(self, stored: StoredOutput | PredictedOutput) -> StageEstimate:
        """The network, and compressing what it says."""
        assert isinstance(stored, StoredOutput)
        memory = EmbedBlock(self.plan.predicted, stored).memory_bytes(self.block)
        seconds = self.prediction_s(BlockGrid(self.plan.shape, self.plan.block_shape))
        seconds += self.voxels * self.costs.store_s
        disk = self.voxels * self.costs.output_bytes
        stores = 1 + stored.networks + (1 if self.plan.offsets else 0)
        return self.stage("embed", seconds, memory, disk, stores, gpu=True)

    def calibrate(self) -> StageEstimate:
        """Modes of all regions, predicted anew where nothing is stored."""
        grid = self.plan.seeking_grid
        seconds = self.voxels * self.costs.seek_s + (self.prediction_s(grid) if self.plan.stream else 0)
        assert isinstance(self.task.method, Modes)
        seeking = SeekModes(self.task.source, self.task.method, 0.0, self.plan.region_grid)
        memory = seeking.memory_bytes(grid.block(0))
        needed = _mb(memory, network=self.plan.stream)
        return StageEstimate("calibrate", len(grid), 1, seconds, self.plan.stream, needed, 0, 0)

    def cluster(self) -> StageEstimate:
        """Clustering of the outer boxes."""
        grid = self.plan.cluster_grid
        seconds = self.share * outer_voxels(grid) * self.costs.cluster_s
        seconds += self.prediction_s(grid) if self.plan.stream else 0
        disk = self.voxels * self.costs.labels_bytes
        return self.stage("cluster", seconds, self.task.memory_bytes(self.block), disk, 1, gpu=self.plan.stream)

    def relabel(self) -> StageEstimate:
        """Fragments replaced by segments."""
        memory, disk = RELABEL_BYTES * self.block.inner.size, self.voxels * self.costs.labels_bytes
        return self.stage("relabel", self.voxels * self.costs.relabel_s, memory, disk, 1)

    def pyramid(self) -> StageEstimate:
        """Every coarser level, each written in blocks of the finest one's shape."""
        shape, part, disk, blocks = self.plan.shape, 1.0, 0.0, 0
        for factor in self.plan.factors:
            shape = triple(-(-s // f) for s, f in zip(shape, factor, strict=True))
            part /= prod(factor)
            disk += part * self.voxels * self.costs.labels_bytes
            edge = triple(min(b, s) for b, s in zip(self.plan.block_shape, shape, strict=True))
            blocks += len(BlockGrid(shape, edge))
        seconds = self.voxels * (self.costs.coarsen_s + part * self.costs.relabel_s)
        memory = _mb(4 * 9 * self.block.inner.size)
        return StageEstimate(
            "pyramid", blocks, 1, seconds, False, memory, round(disk), max(1, round(self.share * blocks))
        )


def outer_voxels(grid: BlockGrid) -> int:
    """Count the voxels of all outer boxes together, without going through the blocks."""
    return prod(
        sum(min(a + edge + halo, extent) - max(0, a - halo) for a in range(0, extent, edge))
        for extent, edge, halo in zip(grid.shape, grid.block_shape, grid.halo, strict=True)
    )


def _mb(size: int, *, network: bool = False) -> int:
    return process_mb(applies_network=network) + size // 2**20 + 1


def refuse(stages: list[StageEstimate], plan: Plan, results: SegmentationResults, memory_mb: int | None) -> None:
    """Refuse what cannot be held.

    Raises
    ------
    ResourceError
        When the disk cannot take what the stages leave, or a job's memory (MiB; None = not known) not one block.
    """
    check_disk(stages, results)
    check_memory(stages, plan, memory_mb)


def check_disk(stages: list[StageEstimate], results: SegmentationResults) -> None:
    """Check that the disk can take what is not written yet.

    Raises
    ------
    ResourceError
        When it cannot.
    """
    arrays = results.arrays or str(results.root)
    if is_remote(arrays):  # which says nothing of how much it may hold
        return
    needed = sum(stage.disk_bytes for stage in stages)
    there = sum(disk_used(results).values())
    folder = next(path for path in (Path(arrays), *Path(arrays).absolute().parents) if path.exists())
    free = DISK_SHARE * shutil.disk_usage(folder).free
    if needed - there > free:
        parts = ", ".join(f"{stage.stage} {size_text(stage.disk_bytes)}" for stage in stages if stage.disk_bytes)
        raise ResourceError(
            f"this segmentation will take about {size_text(needed)} ({parts}), {size_text(int(free))} are free at "
            f"{folder}. Free some, write the results elsewhere (snakemake --config results=FOLDER), store embeddings "
            "as int8 (segmentations.NAME.embedding_type: int8), or do not store them (embeddings: stream)."
        )


def check_memory(stages: list[StageEstimate], plan: Plan, memory_mb: int | None) -> None:
    """Check that a block of every stage fits into the memory that its job is given.

    Raises
    ------
    ResourceError
        When one does not.
    """
    largest = max(stages, key=lambda stage: stage.memory_mb)
    # The process that hands out blocks needs some as well.
    needed_mb = largest.memory_mb + process_mb(applies_network=largest.gpu)
    if memory_mb is not None and needed_mb > memory_mb:
        raise ResourceError(
            f"a block of {plan.block_shape} voxels needs about {needed_mb} MiB in stage {largest.stage}, "
            f"{memory_mb} MiB are given. Use smaller blocks (segmentations.NAME.blocks.shape_voxels), or give more "
            f"memory (snakemake --set-resources {largest.stage}:mem_mb=MIB)."
        )


STORES = {
    "embed": ("embeddings", "other_embeddings", "foreground", "affinities"),
    "calibrate": ("seeds",),
    "cluster": ("fragments",),
    "relabel": ("segments",),
}


def disk_used(results: SegmentationResults) -> dict[str, int]:
    """Give the bytes that the stores of each stage take now; the pyramid counts with `relabel`."""
    return {stage: sum(stored_bytes(getattr(results, name)) for name in names) for stage, names in STORES.items()}


def size_text(size: float) -> str:
    """Give a number of bytes as people say it."""
    power = next((p for p in range(5) if size < 999.5 * 1000**p), 5)
    return f"{size / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB', 'PB')[power]}"
