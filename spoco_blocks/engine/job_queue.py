"""Dask workers that are jobs of a cluster's queue: started as blocks need them, replaced when their time is over."""

from __future__ import annotations

import re
from math import isinf
from typing import Any

import dask
from distributed import SpecCluster

from spoco_blocks.errors import ExecutorError

# What dask-jobqueue names the cluster of each queue. Only Slurm is tested by this project.
QUEUES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster"}
MOST_JOBS = 8
# A worker leaves this long before its job ends, others up to half of it earlier, so that not all leave at once.
LEAVE_S = 120
EXAMPLE = """
~/.config/dask/jobqueue.yaml:
  jobqueue:
    {name}:
      cores: 4          # of a job, and blocks at once in it
      memory: 16GB
      walltime: "04:00:00"
      queue: PARTITION"""


def most_jobs() -> int:
    """Give how many jobs there are at most."""
    most = dask.config.get("distributed.adaptive.maximum", MOST_JOBS)
    return MOST_JOBS if isinf(most) else int(most)


def open_queue(name: str) -> SpecCluster:
    """Start a Dask scheduler here, whose workers are jobs as Dask's configuration describes them.

    Parameters
    ----------
    name : str
        One of `QUEUES`.

    Raises
    ------
    ExecutorError
        When dask-jobqueue is not installed, or the configuration does not say what a job is.
    """
    try:
        import dask_jobqueue
    except ImportError:
        raise ExecutorError(f"scheduler {name!r} needs dask-jobqueue: pip install 'spoco-blocks[slurm]'.") from None
    given = dask.config.get(f"jobqueue.{name}")
    quiet = {**given["scheduler-options"], "dashboard": False}
    extra = [*given["worker-extra-args"], *lifetime(given)]
    try:
        cluster = getattr(dask_jobqueue, QUEUES[name])(scheduler_options=quiet, worker_extra_args=extra)
    except ValueError as error:
        raise ExecutorError(
            f"Dask's configuration does not say what a job of {name!r} is: {error} Expected, for instance:"
            + EXAMPLE.format(name=name)
        ) from None
    # Work is handed out bit by bit, so what is waiting says little of what there is: workers stay for a while.
    cluster.adapt(minimum=1, maximum=most_jobs(), target_duration="1s", wait_count=30)
    return cluster


def lifetime(given: dict[str, Any]) -> list[str]:
    """Give the arguments that make a worker leave before its job ends, unless the configuration has its own."""
    if not given["walltime"] or any("--lifetime" in argument for argument in given["worker-extra-args"]):
        return []
    left = walltime_s(given["walltime"]) - LEAVE_S
    return ["--lifetime", f"{max(left, LEAVE_S // 2)}s", "--lifetime-stagger", f"{LEAVE_S // 2}s"]


def walltime_s(text: str) -> int:
    """Read minutes, MM:SS, HH:MM:SS or D-HH:MM:SS, as Slurm does."""
    days, clock = re.fullmatch(r"(?:(\d+)-)?([\d:]+)", text.strip()).groups()  # type: ignore[union-attr]
    parts = [int(part) for part in clock.split(":")]
    if days is None:
        hours, minutes, seconds = {1: (0, *parts, 0), 2: (0, *parts), 3: tuple(parts)}[len(parts)]
    else:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds
