"""Arguments in, exit code out. Workflow rules call the stages; a user calls the commands that are here."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import sys
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

from spoco_blocks import __version__, arguments
from spoco_blocks.engine.attempts import attempt_log
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.lock import held
from spoco_blocks.engine.slurm import hand_over
from spoco_blocks.errors import BlockError, HandOverError, SpocoBlocksError
from spoco_blocks.settings import json_schema
from spoco_blocks.stage_commands import STAGES, Command, check, plan

# Of work that ended in time and continues when it is started again; sysexits.h has it for "try again later".
HANDED_OVER = 75


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


def view(args: argparse.Namespace) -> None:
    """Show a segmentation in neuroglancer: give a link, and serve the files that it names until Ctrl-C."""
    from spoco_blocks.stages.view import FileServer, find_scene, serve

    scene = find_scene(Layout(args.results), args.segmentation)
    server = FileServer(scene.folders, args.port)
    shown = ", ".join(scene.places)
    more = "" if "raw" in scene.places else " With raw_pyramid: true in the configuration, the raw data are as well."
    print(
        "Open this in a browser on this machine; where it asks, allow access to the local network:\n\n"
        f"{scene.link(server.address)}\n\nShown: {shown}.{more} Ctrl-C ends it.",
        flush=True,
    )
    serve(server)


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

    def add(command: Command) -> argparse.ArgumentParser:
        added = commands.add_parser(command.__name__, help=command.__doc__, description=command.__doc__)
        added.set_defaults(command=partial(_locked, command) if command in STAGES else command)
        return added

    for stage in STAGES:
        arguments.of_a_stage(add(stage), takes_file=stage in (check, plan))
    arguments.of_fetch(add(fetch))
    arguments.of_status(add(status))
    arguments.of_restitch(add(restitch))
    arguments.of_view(add(view))
    arguments.of_running(add(running))
    add(schema)
    return parser


def _locked(stage: Command, args: argparse.Namespace) -> None:
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
