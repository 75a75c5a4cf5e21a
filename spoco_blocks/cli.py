"""Arguments in, exit code out. Workflow rules call the stages; a user calls the other commands."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

from spoco_blocks import __version__, arguments
from spoco_blocks.engine.attempts import attempt_log
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.lock import held
from spoco_blocks.engine.slurm import end_of_job, hand_over
from spoco_blocks.errors import BlockError, HandOverError, SpocoBlocksError
from spoco_blocks.settings import annotation_jobs, clustering_jobs, jobs, json_schema, load_settings, optional_jobs

log = logging.getLogger("spoco_blocks")

# Of work that ended in time and continues when it is started again; sysexits.h has it for "try again later".
HANDED_OVER = 75


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


STAGES: tuple[Callable[[argparse.Namespace], None], ...] = (
    check, labels, train, plan, estimate, embed, calibrate, cluster, stitch, relabel, pyramid, recut, raw_pyramid,
    mesh, skeleton, agree, evaluate, report, annotation_baseline, annotation_curve,
)  # fmt: skip


def fetch(args: argparse.Namespace) -> None:
    """Bring an example volume here."""
    from spoco_blocks.stages.fetch import fetch as bring

    print(bring(args.name, args.into, args.source))


def status(args: argparse.Namespace) -> None:
    """Tell how far every stage is, from its records: also while it runs."""
    from spoco_blocks.engine.status import show

    with suppress(KeyboardInterrupt):
        show(args.results, args.watch)


def restitch(args: argparse.Namespace) -> None:
    """Decide with other thresholds which fragments are one object, from what clustering recorded: no voxels, no GPU."""
    from spoco_blocks.stages.stitch import restitch as again

    sweep = again.Sweep(tuple(args.threshold), again.changes(args.set), args.score, args.write)
    layout = Layout(args.results)
    # Results are written under the lock of the stage whose results they are.
    with held(layout.lock("stitch-0", args.segmentation)) if args.write else nullcontext():
        rows = again.restitch(layout, args.segmentation, sweep, arguments.execution_of(args))
    print(f"{again.in_words(rows)}\nAlso in {layout.segmentation(args.segmentation).curve}.")
    if args.write:
        print("This decision is kept. Write it into the configuration as well, then run snakemake, which relabels.")


def running(args: argparse.Namespace) -> None:
    """Refuse to go on where processes or Slurm jobs of another run still work on the results."""
    from spoco_blocks.engine.running import refuse_others

    refuse_others(args.results, Path.cwd())


def schema(args: argparse.Namespace) -> None:
    """Print the JSON schema of the configuration."""
    print(json_schema(), end="")


def main(words: list[str] | None = None) -> int:
    """Run a command; errors that a user can act on are printed without a traceback."""
    # OpenMP's threads spin while they wait for each other. For long, it takes 3 to 4 times as long where something else
    # has their cores; not at all, nearly twice as long where nothing has. It must be said before PyTorch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    args = _parser().parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        args.command(args)
    except HandOverError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        hand_over(error)
        return HANDED_OVER
    except SpocoBlocksError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        if isinstance(error, BlockError):
            command = shlex.join(["spoco-blocks", *(sys.argv[1:] if words is None else words)])
            print(f"Where snakemake started this, run snakemake again; else:\n  {command}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="spoco-blocks", description="Instance segmentation of large 3D volumes.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(command: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        added = commands.add_parser(command.__name__, help=command.__doc__, description=command.__doc__)
        added.set_defaults(command=partial(_locked, command) if command in STAGES else command)
        return added

    for stage in STAGES:
        arguments.of_a_stage(add(stage), takes_file=stage in (check, plan))
    arguments.of_fetch(add(fetch))
    arguments.of_status(add(status))
    arguments.of_restitch(add(restitch))
    arguments.of_running(add(running))
    add(schema)
    return parser


def _locked(stage: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Run a stage that no other process is running: a run that outlived its workflow must not write beside this one."""
    # Of several processes that train together the first holds the lock.
    if stage is check or not args.job.lstrip().startswith("{") or os.environ.get("RANK", "0") != "0":
        stage(args)
        return
    job = json.loads(args.job)
    name = job.get("segmentation") or job.get("model") or job.get("volume") or "job"
    layout, what = Layout(args.results), f"{stage.__name__}-{args.shard}"
    with held(layout.lock(what, name)), attempt_log(layout.attempts(what, name), args.workers, args.memory_mb):
        stage(args)


if __name__ == "__main__":
    sys.exit(main())
