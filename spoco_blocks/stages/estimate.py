"""Stage `estimate`: what the blocks of a segmentation will cost, from a few samples, before any is run."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from math import prod
from pathlib import Path

from spoco_blocks.clustering import Modes
from spoco_blocks.engine.layout import Layout, SegmentationResults
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.engine.runner import process_mb
from spoco_blocks.errors import ResourceError
from spoco_blocks.settings.clustering_jobs import EstimateJob
from spoco_blocks.settings.jobs import digest
from spoco_blocks.stages.cluster import cluster_task, task_and_grid
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.estimate_stages import StageEstimate, Whole, in_mb, outer_voxels
from spoco_blocks.stages.exact.costs import CLUSTERING, SEEDING, pass_memory
from spoco_blocks.stages.exact.find import check_exact
from spoco_blocks.stages.exact.seeds import exact_grid
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.plan.optional_samples import Options
from spoco_blocks.stages.plan.samples import Costs, measure_costs
from spoco_blocks.stages.precomputed import check_library
from spoco_blocks.stages.raw_pyramid import own_pyramid
from spoco_blocks.volumes import is_remote, stored_bytes

VERSION = 3
# Of the free disk, what the stores may take: records, logs and others need some as well.
DISK_SHARE = 0.95


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
    if job.skeletons is not None:
        check_library("skeletons")
    copies = job.raw_pyramid and own_pyramid(plan.predicted.raw, plan.voxel_size_nm) is None
    options = Options(copies, job.gaps, job.meshes, job.skeletons)
    costs = measure_costs(plan, method, job.foreground_threshold, options)
    task = cluster_task(plan, results, "", method, job.foreground_threshold, gaps=job.gaps)
    whole = Whole(plan, costs, task, job)
    stages = [] if plan.stream else [whole.embed(plan.output(results, affinities=True))]
    stages += [whole.calibrate()] if isinstance(method, Modes) else []
    recut = whole.recut(*task_and_grid(plan, results, "", job.cluster()))
    stages += [whole.cluster(), whole.relabel(), whole.pyramid()]
    stages += [] if recut is None else [recut]
    stages += [whole.raw_pyramid()] if copies else []
    stages += [] if job.meshes is None else [whole.mesh(job.meshes)]
    stages += [] if job.skeletons is None else [whole.skeleton(job.skeletons)]
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
        return replace(stage, work_s=CLUSTERING * once_s, memory_mb=in_mb(for_voxels))
    if stage.stage == "calibrate":
        return replace(
            stage, work_s=stage.work_s + SEEDING * once_s, memory_mb=max(stage.memory_mb, in_mb(for_seeds)),
            disk_bytes=round(share * prod(plan.shape) * costs.labels_bytes),
            files=max(1, round(share * len(plan.cluster_grid))),
        )  # fmt: skip
    return stage


def refuse(stages: list[StageEstimate], plan: Plan, results: SegmentationResults, memory_mb: int | None) -> None:
    """Refuse what cannot be held.

    Raises
    ------
    ResourceError
        When the disk cannot take what the stages leave, or a job's memory (MiB; None = not known) not one block.
        What is only bounded is never refused.
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
    known = [stage for stage in stages if not stage.bound]
    needed, used = sum(stage.disk_bytes for stage in known), disk_used(results)
    there = sum(used.get(stage.stage, 0) for stage in known)
    folder = next(path for path in (Path(arrays), *Path(arrays).absolute().parents) if path.exists())
    free = DISK_SHARE * shutil.disk_usage(folder).free
    if needed - there > free:
        parts = ", ".join(f"{stage.stage} {size_text(stage.disk_bytes)}" for stage in known if stage.disk_bytes)
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
    largest = max((stage for stage in stages if not stage.bound), key=lambda stage: stage.memory_mb)
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
    "raw_pyramid": ("raw_pyramid",),
}


def disk_used(results: SegmentationResults) -> dict[str, int]:
    """Give the bytes that the stores of each stage take now; the pyramid counts with `relabel`."""
    return {stage: sum(stored_bytes(getattr(results, name)) for name in names) for stage, names in STORES.items()}


def size_text(size: float) -> str:
    """Give a number of bytes as people say it."""
    power = next((p for p in range(5) if size < 999.5 * 1000**p), 5)
    return f"{size / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB', 'PB')[power]}"
