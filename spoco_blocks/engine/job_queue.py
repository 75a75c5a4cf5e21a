"""Dask workers that are jobs of Slurm: started as blocks need them, replaced when their time is over."""

from __future__ import annotations

import logging
import re
from math import isinf
from typing import Any

import dask
from distributed import Client, SpecCluster

from spoco_blocks.engine.slurm import ended
from spoco_blocks.errors import ExecutorError

log = logging.getLogger(__name__)

# What stands for an address.
SLURM = "slurm"
MOST_JOBS = 8
# A worker leaves this long before its job ends, others up to half of it earlier, so that not all leave at once.
LEAVE_S = 120
# Between looks at jobs of which no worker has come.
LOOK_S = 60.0
EXAMPLE = """
~/.config/dask/jobqueue.yaml:
  jobqueue:
    slurm:
      cores: 4          # of a job, and blocks at once in it
      memory: 16GB
      walltime: "04:00:00"
      queue: PARTITION"""


def most_jobs() -> int:
    """Give how many jobs there are at most."""
    most = dask.config.get("distributed.adaptive.maximum", MOST_JOBS)
    return MOST_JOBS if isinf(most) else int(most)


def open_jobs() -> SpecCluster:
    """Start a Dask scheduler here, whose workers are jobs as Dask's configuration describes them.

    Raises
    ------
    ExecutorError
        When dask-jobqueue is not installed, or the configuration does not say what a job is.
    """
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise ExecutorError("scheduler 'slurm' needs dask-jobqueue: pip install 'spoco-blocks[slurm]'.") from None
    given = dask.config.get("jobqueue.slurm")
    quiet = {**given["scheduler-options"], "dashboard": False}
    try:
        extra = [*given["worker-extra-args"], *lifetime(given)]
        cluster = SLURMCluster(scheduler_options=quiet, worker_extra_args=extra)
    except ValueError as error:
        raise ExecutorError(
            f"Dask's configuration does not say what a job is: {error} Expected, for instance:{EXAMPLE}"
        ) from None
    # Work is handed out bit by bit, so what is waiting says little of what there is: workers stay for a while.
    cluster.adapt(minimum=1, maximum=most_jobs(), target_duration="1s", wait_count=30)
    return cluster


def wait_for_first(client: Client, cluster: SpecCluster) -> None:
    """Wait for a worker as long as one may come: a job may be queued for hours.

    Raises
    ------
    ExecutorError
        When all jobs ended and left no worker.
    """
    while True:
        try:
            client.wait_for_workers(1, timeout=LOOK_S)
            return
        except TimeoutError:
            check_jobs(cluster)


def check_jobs(cluster: SpecCluster) -> None:
    """Look at the jobs while no worker is there, and say so.

    Raises
    ------
    ExecutorError
        When all of them ended.
    """
    numbers = sorted(job.job_id for job in cluster.workers.values() if getattr(job, "job_id", None))
    if numbers and ended(numbers):
        raise ExecutorError(
            f"Slurm jobs {', '.join(numbers)} ended and no worker came of them; their output says why (slurm-JOB.out, "
            "or log-directory of jobqueue.slurm in Dask's configuration). Can nodes reach this one, and see the same "
            "files? What was finished is kept: run the same command again."
        )
    log.info("no worker yet of Slurm jobs %s: waiting for them (squeue --me)", ", ".join(numbers) or "to be submitted")


def lifetime(given: dict[str, Any]) -> list[str]:
    """Give the arguments that make a worker leave before its job ends, unless the configuration has its own."""
    if not given["walltime"] or any("--lifetime" in argument for argument in given["worker-extra-args"]):
        return []
    left = walltime_s(given["walltime"]) - LEAVE_S
    return ["--lifetime", f"{max(left, LEAVE_S // 2)}s", "--lifetime-stagger", f"{LEAVE_S // 2}s"]


def walltime_s(text: str) -> int:
    """Read minutes, MM:SS, HH:MM:SS or D-HH:MM:SS, as Slurm does.

    Raises
    ------
    ValueError
        When it is none of these.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+(?::\d+){0,2})", str(text).strip())
    if found is None:
        raise ValueError(f"walltime is {text!r}; write D-HH:MM:SS or HH:MM:SS.")
    days, parts = found[1], [int(part) for part in found[2].split(":")]
    if days is None and len(parts) < 3:
        parts = [0, *parts]
    hours, minutes, seconds = (*parts, 0, 0)[:3]
    return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds
