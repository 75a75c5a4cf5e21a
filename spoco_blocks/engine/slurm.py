"""What Slurm knows of the job that this process is in and of others, and how a job gives itself back to the queue.

Slurm warns nobody reliably before it ends a job: nothing here waits for a signal.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spoco_blocks.errors import HandOverError

log = logging.getLogger(__name__)

ANSWER_S = 30.0
# How long a job that gave itself back waits to be ended.
GOODBYE_S = 120.0
PATIENCE_S = 10.0
# What Snakemake's executor writes into the comment of its jobs.
RULE_COMMENT = "rule_"


@dataclass(frozen=True)
class SlurmJob:
    """A job of Slurm.

    Attributes
    ----------
    number : str
        As `scancel` takes it.
    end : float or None
        When its time is over, in Unix seconds; None = never, or not known.
    may_requeue : bool
        Whether Snakemake submitted it and the site lets it go back to the queue.
    """

    number: str
    end: float | None
    may_requeue: bool

    @classmethod
    def of_this_process(cls) -> SlurmJob | None:
        """Ask for the job that this process is in; None where it is in none."""
        number = os.environ.get("SLURM_JOB_ID")
        if number is None:
            return None
        told = os.environ.get("SLURM_JOB_END_TIME", "")
        facts = _ask("scontrol", "show", "job", "--oneliner", number)
        if facts is None:
            log.warning("Slurm does not answer: job %s may be ended before its block is finished", number)
            return cls(number, float(told) if told.isdigit() else None, False)
        # It knows of limits that were changed since the job began.
        end = _field(facts, "EndTime")
        mine = _field(facts, "Requeue") == "1" and _field(facts, "BatchFlag") == "1"
        comment = _field(facts, "Comment").startswith(RULE_COMMENT)
        return cls(number, float(end) if end.isdigit() else None, mine and comment)


def end_of_job() -> float | None:
    """Tell when the Slurm job of this process will be ended, in Unix seconds; None where nothing is known of one."""
    job = SlurmJob.of_this_process()
    return None if job is None else job.end


def hand_over(error: HandOverError) -> None:
    """Put this process's job back into the queue, which ends it; returns where that may not be, or is of no use."""
    # Of processes that train together the first does it. When another ends, all are ended.
    if os.environ.get("RANK", "0") != "0":
        time.sleep(PATIENCE_S)
        return
    job = SlurmJob.of_this_process()
    # Where nothing was finished, the workflow's next attempt may get more time; the same job would not.
    if job is None or not job.may_requeue or not error.advanced:
        return
    log.info("job %s goes back to the queue", job.number)
    if _ask("scontrol", "requeue", job.number) is not None:
        time.sleep(GOODBYE_S)


def unfinished_jobs(folder: Path) -> list[str]:
    """Describe jobs that a Snakemake started in a folder submitted and that have not ended.

    Returns
    -------
    list of str
        One sentence for each, with its number; empty where there is no Slurm.
    """
    answer = _ask("squeue", "--me", "--noheader", "--format=%i|%T|%N|%k|%Z")
    found = []
    for line in (answer or "").splitlines():
        number, state, node, comment, workdir = line.split("|", 4)
        if comment.startswith(RULE_COMMENT) and Path(workdir).resolve() == folder.resolve():
            found.append(f"Slurm job {number} ({comment.removeprefix(RULE_COMMENT)}), {state.lower()} {node}".rstrip())
    return found


def ended(numbers: Sequence[str]) -> bool:
    """Tell whether none of some jobs of this user is in the queue; False where Slurm does not answer."""
    answer = _ask("squeue", "--me", "--noheader", "--format=%A")
    return answer is not None and set(numbers).isdisjoint(answer.split())


def _field(facts: str, name: str) -> str:
    found = re.search(rf"(?:^| ){name}=(\S*)", facts)
    return found.group(1) if found else ""


def _ask(*command: str) -> str | None:
    environment = os.environ | {"SLURM_TIME_FORMAT": "%s"}
    try:
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=ANSWER_S, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None
