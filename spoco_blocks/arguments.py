"""What each command of the command line takes."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.slurm import end_of_job


def of_a_stage(parser: ArgumentParser, *, takes_file: bool) -> None:
    """Take a job, shards, and how blocks are run."""
    what = "configuration file, or" if takes_file else "the stage's settings as JSON,"
    parser.add_argument("job", help=f"{what} as the workflow writes them")
    of_execution(parser)
    parser.add_argument("--shard", type=int, default=0, help="which shard of the blocks")
    parser.add_argument("--shards", type=int, default=1, help="of how many")
    parser.add_argument("--content", default="", help="fingerprint of the stores that users edit")


def of_execution(parser: ArgumentParser) -> None:
    """Take a results folder, and what blocks are run by."""
    add = parser.add_argument
    add("--results", type=Path, default=Path("results"), help="results folder")
    add("--workers", type=int, default=os.cpu_count() or 1, help="blocks, or threads, at once")
    add("--memory-mb", type=int, default=None, help="memory for all workers, in MiB")
    add("--executor", choices=("serial", "threads", "dask"), default="dask", help="what runs blocks")
    add("--scheduler", metavar="ADDRESS", default=None, help="Dask scheduler to use, tcp://HOST:8786, or slurm")
    add("--gpus", type=int, default=None, help="GPUs for one Dask worker each; all that are there")
    add("--retries", type=int, default=1, help="further attempts at a block that failed")
    add("--stop-before", type=float, metavar="UNIX_SECONDS", help="end in time; a Slurm job does anyway")


def of_fetch(parser: ArgumentParser) -> None:
    """Take the name of an example volume, and where from and to."""
    parser.add_argument("name", help="name of the example volume, for instance lightsheet_nuclei")
    parser.add_argument("--into", type=Path, default=Path("data"), help="folder to write to")
    what = "the downloaded file, where there is no network"
    parser.add_argument("--from", dest="source", type=Path, default=None, help=what)


def of_status(parser: ArgumentParser) -> None:
    """Take a results folder, and how often to look."""
    of_running(parser)
    add = parser.add_argument
    add("--watch", type=float, nargs="?", const=2.0, default=None, metavar="SECONDS", help="again and again")


def of_running(parser: ArgumentParser) -> None:
    """Take a results folder."""
    parser.add_argument("results", type=Path, nargs="?", default=Path("results"), help="results folder")


def of_restitch(parser: ArgumentParser) -> None:
    """Take a segmentation and thresholds."""
    parser.add_argument("segmentation", help="name of the segmentation, whose blocks are clustered")
    what = "merge_distance, or min_overlap of final objects (several make a curve)"
    parser.add_argument("--threshold", type=float, nargs="+", default=[], metavar="VALUE", help=what)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="other keys of `stitching`")
    parser.add_argument("--score", action="store_true", help="compare with the truth, which is read once")
    parser.add_argument("--write", action="store_true", help="keep this one decision")
    of_execution(parser)


def of_view(parser: ArgumentParser) -> None:
    """Take a segmentation, and where to serve it."""
    parser.add_argument("segmentation", help="name of a segmentation that is finished")
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder")
    what = "port of this machine to serve files at, for instance one that ssh -L forwards; any free one"
    parser.add_argument("--port", type=int, default=0, help=what)


def execution_of(args: Namespace, *, predicts: bool = False) -> Execution:
    """Give how blocks are run, as a stage's arguments say."""
    gpus, scheduler = args.gpus or 0, args.scheduler or None
    if predicts and args.gpus is None and args.executor == "dask" and scheduler is None:
        from spoco_blocks.learn.device import count_gpus

        gpus = count_gpus()
    deadline = args.stop_before or end_of_job()
    return Execution(
        args.executor, args.workers, args.memory_mb, scheduler, gpus, retries=args.retries, deadline=deadline
    )
