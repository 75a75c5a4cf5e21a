"""A process that will be ended finishes what it began, begins nothing else, and says what is left."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest
from block_tasks import Note, Slow, line_of, lines

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.lock import held
from spoco_blocks.engine.runner import run
from spoco_blocks.engine.running import refuse_others
from spoco_blocks.engine.slurm import SlurmJob, end_of_job, unfinished_jobs
from spoco_blocks.errors import HandOverError, LedgerError


@pytest.mark.parametrize("executor", ["serial", "threads", "dask"])
def test_what_was_begun_is_finished_and_nothing_is_done_twice(tmp_path, executor):
    blocks, task = line_of(200, tmp_path), Slow(tmp_path, seconds=0.4)
    with pytest.raises(HandOverError, match=r"\d+ of 200 blocks are left, \d+ were done in it") as handed:
        # Five seconds of it are the reserve.
        run(task, blocks, Execution(executor, 2, deadline=time.time() + 12))
    left = int(re.search(r"(\d+) of 200", str(handed.value)).group(1))
    assert handed.value.advanced
    assert 0 < left < 200
    assert len(lines(tmp_path, "calls-*")) == 200 - left
    summary = run(Note(tmp_path), blocks, Execution(executor, 2))
    assert (summary.computed, summary.reused) == (left, 200 - left)
    assert len(lines(tmp_path, "calls-*")) == 200


def test_no_time_at_all_is_said_to_be_no_time(tmp_path):
    with pytest.raises(HandOverError, match="give the job more time") as handed:
        run(Note(tmp_path), line_of(3, tmp_path), Execution(deadline=time.time() + 1))
    assert not handed.value.advanced
    assert not lines(tmp_path, "calls-*")


def test_a_long_block_is_begun_where_there_is_time_for_one_but_not_for_two(tmp_path):
    with pytest.raises(HandOverError, match="2 of 3 blocks are left, 1 were done"):
        run(Slow(tmp_path, seconds=3), line_of(3, tmp_path), Execution(deadline=time.time() + 10))


def test_a_deadline_that_is_far_away_changes_nothing(tmp_path):
    assert run(Note(tmp_path), line_of(3, tmp_path), Execution(deadline=time.time() + 3600)).computed == 3


def test_work_of_another_process_is_named_and_nothing_is_started_beside_it(tmp_path):
    layout = Layout(tmp_path / "results")
    refuse_others(layout.root, tmp_path)
    code = (
        "import sys, pathlib; from spoco_blocks.engine.lock import acquire\n"
        "file = acquire(pathlib.Path(sys.argv[1])); print(flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(layout.lock("embed-0", "balls"))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"SLURM_JOB_ID": "17"},
    )  # fmt: skip
    other.stdout.readline()
    expected = f"embed-0-balls: process {other.pid} of .*, Slurm job 17(?s:.*)scancel JOB"
    with pytest.raises(LedgerError, match=expected):
        refuse_others(layout.root, tmp_path)
    with (
        pytest.raises(LedgerError, match=f"held by process {other.pid} of .*, Slurm job 17: another"),
        held(layout.lock("embed-0", "balls"), patience_s=0),
    ):
        pass
    # Asking did not wipe its name away.
    with pytest.raises(LedgerError, match=expected):
        refuse_others(layout.root, tmp_path)
    other.communicate(b"\n")
    refuse_others(layout.root, tmp_path)


def test_without_slurm_there_is_no_job_and_no_deadline(monkeypatch, tmp_path):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert SlurmJob.of_this_process() is None
    assert end_of_job() is None
    monkeypatch.setenv("PATH", "")
    assert unfinished_jobs(tmp_path) == []


def test_where_slurm_does_not_answer_its_environment_counts(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1800000000")
    job = SlurmJob.of_this_process()
    assert (job.end, job.may_requeue) == (1800000000.0, False)
