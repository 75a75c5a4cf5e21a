"""An estimate as a table, for those who decide whether to submit it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from spoco_blocks.engine.layout import Layout
from spoco_blocks.settings import Settings, jobs
from spoco_blocks.settings.clustering_jobs import EstimateJob
from spoco_blocks.stages.estimate import estimate, refuse, size_text
from spoco_blocks.stages.estimate_stages import StageEstimate
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.plan.run import prepare
from spoco_blocks.stages.plan.samples import Costs
from spoco_blocks.stages.report.wording import AT_MOST, TIMES, duration

COLUMNS = ("stage", "blocks", "jobs", "work", "wall time", "memory per block", "disk", "files")


def say_costs(settings: Settings, layout: Layout, workers: int, memory_mb: int | None) -> None:
    """Print what every segmentation of a configuration will cost, before anything is written.

    Raises
    ------
    ResourceError
        When disk or memory cannot hold one.
    """
    for name in settings.segmentations:
        planning = jobs.read_job(jobs.PlanJob, jobs.canonical(jobs.segmentation_job(settings, "plan", name)))
        job = jobs.read_job(EstimateJob, jobs.canonical(jobs.segmentation_job(settings, "estimate", name)))
        cut, _ = prepare(planning, layout)
        results = layout.segmentation(name).with_arrays_below(planning.arrays)
        stages, costs = estimate(cut, job, results)
        show_estimate(name, cut, stages, costs, workers)
        refuse(stages, cut, results, memory_mb)


def wall_s(stage: StageEstimate, workers: int) -> float:
    """Give the wall time in seconds when all jobs run at once, each with so many workers."""
    return stage.work_s / max(1, min(stage.blocks, stage.jobs * workers))


def show_estimate(
    name: str, plan: Plan, stages: Sequence[StageEstimate], costs: Costs, workers: int, console: Console | None = None
) -> None:
    """Print an estimate.

    Parameters
    ----------
    name : str
        The segmentation.
    plan : Plan
        How it is cut.
    stages : sequence of StageEstimate
        What each stage will cost.
    costs : Costs
        What the samples were like.
    workers : int
        Workers of a job.
    console : rich.console.Console, optional
        Where to print.
    """
    console = console or Console()
    table = Table(title=name, title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage in stages:
        cells = (
            duration(stage.work_s), duration(wall_s(stage, workers)), f"{stage.memory_mb:,} MiB",
            size_text(stage.disk_bytes), f"{stage.files:,}",
        )  # fmt: skip
        counts = (f"{stage.blocks:,}", f"{stage.jobs:,}")
        table.add_row(stage.stage, *counts, *(f"{AT_MOST} {cell}" if stage.bound else cell for cell in cells))
    console.print(table)
    bounds, stages = [s.stage for s in stages if s.bound], [s for s in stages if not s.bound]
    gpu_h = sum(stage.work_s for stage in stages if stage.gpu) / 3600
    device = plan.predicted.predictor().device
    lines = [
        f"{TIMES.join(map(str, plan.shape))} voxels in blocks of {TIMES.join(map(str, plan.block_shape))}; "
        f"{costs.drawn - costs.empty} of {costs.drawn} samples had something to segment.",
        f"Wall time {duration(sum(wall_s(stage, workers) for stage in stages))} when all jobs run at once with "
        f"{workers} workers each, on {'a GPU' if device == 'cuda' else 'processors'} like this one, "
        "and some seconds for each job to start; "
        f"{sum(stage.jobs for stage in stages):,} jobs, {size_text(sum(s.disk_bytes for s in stages))} in "
        f"{sum(stage.files for stage in stages):,} files.",
        f"{gpu_h:.3g} GPU hours." if device == "cuda" else "No GPU here: how long one would take is not known.",
    ]
    if bounds:
        lines.append(
            f"{AT_MOST}: at most; {' and '.join(bounds)} depend on objects that are not found yet, and are not counted "
            "in these sums."
        )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
