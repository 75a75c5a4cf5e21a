"""What workers that are jobs are told; tests/slurm has them work."""

from __future__ import annotations

import dask
import pytest

from spoco_blocks.engine.job_queue import MOST_JOBS, lifetime, most_jobs, open_jobs, walltime_s
from spoco_blocks.errors import ExecutorError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 1800), ("10:30", 630), ("04:00:00", 14400), ("1-00", 86400), ("2-01:30", 178200), ("1-00:00:05", 86405)],
)
def test_wall_times_are_read_as_slurm_reads_them(text, seconds):
    assert walltime_s(text) == seconds


@pytest.mark.parametrize("text", ["4h", "", "1-", "1:2:3:4", "-5"])
def test_other_wall_times_are_refused(text):
    with pytest.raises(ValueError, match="HH:MM:SS"):
        walltime_s(text)


def test_workers_leave_before_their_job_ends():
    assert lifetime({"walltime": "01:00:00", "worker-extra-args": []})[:2] == ["--lifetime", "3480s"]
    assert lifetime({"walltime": "00:01:00", "worker-extra-args": []})[1] == "60s"
    assert lifetime({"walltime": "01:00:00", "worker-extra-args": ["--lifetime=5m"]}) == []
    assert lifetime({"walltime": None, "worker-extra-args": []}) == []


def test_there_is_a_bound_on_jobs():
    assert most_jobs() == MOST_JOBS
    with dask.config.set({"distributed.adaptive.maximum": 20}):
        assert most_jobs() == 20


def test_a_job_that_nobody_described_is_asked_for():
    pytest.importorskip("dask_jobqueue")
    with pytest.raises(
        ExecutorError, match=r"how much cores[\s\S]*jobqueue.yaml:\n  jobqueue:\n    slurm:\n      cores"
    ):
        open_jobs()
