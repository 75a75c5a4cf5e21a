"""A command for each stage: its job as the workflow writes it in, the stage run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from spoco_blocks import arguments
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.slurm import end_of_job
from spoco_blocks.settings import annotation_jobs, clustering_jobs, jobs, load_settings, optional_jobs

Command = Callable[[argparse.Namespace], None]


def check(args: argparse.Namespace) -> None:
    """Open everything that a configuration names, and say what does not fit; reads no voxels."""
    from spoco_blocks.stages.check import check_sources

    if args.job.lstrip().startswith("{"):
        check_sources(jobs.read_job(jobs.CheckJob, args.job))
        return
    for name, raw in check_sources(jobs.check_job(load_settings(Path(args.job)))).items():
        print(f"{name}: {raw.uri}, {raw.meta.shape} voxels of {raw.meta.voxel_size_nm} nm, {raw.meta.dtype}")
    print(f"{args.job} is fine.")


def labels(args: argparse.Namespace) -> None:
    """Index a volume: intensities, annotated objects, split."""
    from spoco_blocks.stages.labels import run_labels

    job = jobs.read_job(jobs.LabelsJob, args.job)
    run_labels(job, Layout(args.results).volume(job.volume), arguments.execution_of(args), args.content)


def train(args: argparse.Namespace) -> None:
    """Train a model."""
    from spoco_blocks.stages.train import run_train

    run_train(
        jobs.read_job(jobs.TrainJob, args.job), Layout(args.results), args.workers, args.stop_before or end_of_job()
    )


def plan(args: argparse.Namespace) -> None:
    """Cut a volume into blocks and create the stores; of a configuration file, only say what it will cost."""
    if not args.job.lstrip().startswith("{"):
        from spoco_blocks.stages.estimate_words import say_costs

        say_costs(load_settings(Path(args.job)), Layout(args.results), args.workers, args.memory_mb)
        return
    from spoco_blocks.stages.plan.run import run_plan

    run_plan(jobs.read_job(jobs.PlanJob, args.job), Layout(args.results), args.content)


def estimate(args: argparse.Namespace) -> None:
    """Say what the blocks of a planned segmentation will cost, and refuse what disk or memory cannot hold."""
    from spoco_blocks.stages.estimate import run_estimate

    run_estimate(jobs.read_job(clustering_jobs.EstimateJob, args.job), Layout(args.results), args.memory_mb)


def embed(args: argparse.Namespace) -> None:
    """Predict embeddings of a shard of blocks."""
    from spoco_blocks.stages.embed import run_embed

    job = jobs.read_job(jobs.SegmentationJob, args.job)
    run_embed(job, Layout(args.results), arguments.execution_of(args, predicts=True), args.shard, args.shards)


def calibrate(args: argparse.Namespace) -> None:
    """Decide what clustering decides once per volume."""
    from spoco_blocks.stages.calibrate import run_calibrate

    run_calibrate(
        jobs.read_job(clustering_jobs.CalibrateJob, args.job),
        Layout(args.results),
        arguments.execution_of(args, predicts=True),
    )


def cluster(args: argparse.Namespace) -> None:
    """Cluster a shard of blocks."""
    from spoco_blocks.stages.cluster import run_cluster

    job = jobs.read_job(clustering_jobs.ClusterJob, args.job)
    run_cluster(job, Layout(args.results), arguments.execution_of(args, predicts=True), args.shard, args.shards)


def stitch(args: argparse.Namespace) -> None:
    """Decide which fragments are one object."""
    from spoco_blocks.stages.stitch import run_stitch

    run_stitch(jobs.read_job(jobs.StitchJob, args.job), Layout(args.results))


def relabel(args: argparse.Namespace) -> None:
    """Write a shard of the segmentation."""
    from spoco_blocks.stages.relabel import run_relabel

    job = jobs.read_job(jobs.SegmentationJob, args.job)
    run_relabel(job, Layout(args.results), arguments.execution_of(args), args.shard, args.shards)


def pyramid(args: argparse.Namespace) -> None:
    """Write the coarser levels of the segmentation."""
    from spoco_blocks.stages.pyramid import run_pyramid

    run_pyramid(jobs.read_job(jobs.SegmentationJob, args.job), Layout(args.results), arguments.execution_of(args))


def recut(args: argparse.Namespace) -> None:
    """Say how much the cut into blocks shows, by a few blocks that lie across the seams."""
    from spoco_blocks.stages.recut import run_recut

    run_recut(jobs.read_job(clustering_jobs.RecutJob, args.job), Layout(args.results), arguments.execution_of(args))


def raw_pyramid(args: argparse.Namespace) -> None:
    """Copy the raw data with the levels of the segmentation."""
    from spoco_blocks.stages.raw_pyramid import run_raw_pyramid

    run_raw_pyramid(
        jobs.read_job(optional_jobs.RawPyramidJob, args.job), Layout(args.results), arguments.execution_of(args)
    )


def mesh(args: argparse.Namespace) -> None:
    """Write the surfaces of all objects."""
    from spoco_blocks.stages.mesh import run_mesh

    run_mesh(jobs.read_job(optional_jobs.MeshJob, args.job), Layout(args.results), arguments.execution_of(args))


def skeleton(args: argparse.Namespace) -> None:
    """Write the centre lines of all objects."""
    from spoco_blocks.stages.skeleton import run_skeleton

    run_skeleton(jobs.read_job(optional_jobs.SkeletonJob, args.job), Layout(args.results), arguments.execution_of(args))


def agree(args: argparse.Namespace) -> None:
    """Keep what two networks agree on as pseudo-labels."""
    from spoco_blocks.stages.agree import run_agree

    run_agree(jobs.read_job(jobs.AgreeJob, args.job), Layout(args.results), arguments.execution_of(args))


def evaluate(args: argparse.Namespace) -> None:
    """Score a segmentation against the truth."""
    from spoco_blocks.stages.evaluate import in_words, run_evaluate

    job = jobs.read_job(jobs.EvaluateJob, args.job)
    found = run_evaluate(job, Layout(args.results), arguments.execution_of(args), args.content).result.get("scores")
    if found is not None:
        print(f"Scores of {job.segmentation}\n{in_words(found)}")


def report(args: argparse.Namespace) -> None:
    """Write the report of a segmentation."""
    from spoco_blocks.stages.report import run_report

    run_report(jobs.read_job(jobs.ReportJob, args.job), Layout(args.results))


def annotation_baseline(args: argparse.Namespace) -> None:
    """Tune and score the classical baseline of an annotation curve."""
    from spoco_blocks.stages.annotation_baseline import run_annotation_baseline

    run_annotation_baseline(
        jobs.read_job(annotation_jobs.AnnotationBaselineJob, args.job), Layout(args.results), args.content
    )


def annotation_curve(args: argparse.Namespace) -> None:
    """Draw score against number of annotated objects."""
    from spoco_blocks.stages.annotation_curve import run_annotation_curve

    run_annotation_curve(jobs.read_job(annotation_jobs.AnnotationCurveJob, args.job), Layout(args.results))


STAGES: tuple[Command, ...] = (
    check, labels, train, plan, estimate, embed, calibrate, cluster, stitch, relabel, pyramid, recut, raw_pyramid,
    mesh, skeleton, agree, evaluate, report, annotation_baseline, annotation_curve,
)  # fmt: skip
