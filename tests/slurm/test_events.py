"""What happens to jobs on a cluster: each shard loses at most the block in flight, and the arrays are the same."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from submitting import ARRAYS, BLOCKS, SHARDS, wait_for

pytestmark = pytest.mark.slurm

UNTIL = ("--until", "embed")
EMBEDDED = ARRAYS[:3]


@pytest.fixture(autouse=True)
def nothing_left(cluster):
    yield
    cluster.clear()


@pytest.fixture
def slow(run):
    """Copy the planned folder; its blocks take a second, so that each goes out alone and is met half-way."""

    def of(name="workflow", *, seconds=1.0, **environment):
        return run(name, Path(__file__).parent / "slowly", BLOCK_SECONDS=str(seconds), **environment)

    return of


@pytest.fixture
def check(record_property, request, expected):
    """Check blocks and arrays, and note a line of the table."""

    def of(run, what=""):
        redone = [run.redone("embed", shard) for shard in range(SHARDS)]
        same = run.digests(EMBEDDED) == {name: expected[name] for name in EMBEDDED if name in expected}
        record_property(f"blocks_redone{what}", redone)
        print(f"| {request.node.name}{what} | {redone} | {'identical' if same else 'DIFFERENT'} |")
        assert same
        assert max(redone) <= 1
        assert sum(run.done("embed", shard) for shard in range(SHARDS)) == BLOCKS

    return of


def test_requeue(cluster, slow, check):
    ours = slow()
    snakemake = ours.start(*UNTIL, "--retries", "0")
    ours.half_way("embed")
    cluster("scontrol", "requeue", cluster.job_of("embed"))
    ours.finish(snakemake)
    assert ours.starts("embed", 0) + ours.starts("embed", 1) == 3
    check(ours)


def test_scancel(cluster, slow, check):
    ours = slow()
    snakemake = ours.start(*UNTIL)
    ours.half_way("embed")
    cluster("scancel", cluster.job_of("embed"))
    ours.finish(snakemake)
    assert ours.starts("embed", 0) + ours.starts("embed", 1) == 3
    check(ours)


def test_preemption(cluster, slow, check):
    ours = slow()
    snakemake = ours.start(*UNTIL, "--retries", "0", "--set-resources", "embed:slurm_partition=scavenge")
    ours.half_way("embed", 0)
    ours.half_way("embed", 1)
    cluster("sbatch", "--partition=cpu", "--nodes=2", "--exclusive", "--time=1", "--output=/dev/null", "--wrap=sleep 1")
    ours.finish(snakemake)
    assert (ours.starts("embed", 0), ours.starts("embed", 1)) == (2, 2)
    check(ours)


def test_jobs_that_need_more_time_than_they_have(cluster, slow, check):
    # Slurm knows no shorter time than a minute: both ways to go on share it.
    requeues, retries = slow("requeues", seconds=3.5), slow("retries", seconds=3.5)
    one_minute = ("--set-resources", "embed:runtime=1")
    by_requeueing = requeues.start(*UNTIL, "--retries", "0", *one_minute)
    # What the profile's slurm-no-requeue does.
    by_retrying = retries.start(*UNTIL, "--retries", "5", *one_minute, "embed:slurm_extra='--no-requeue'")
    for ours, snakemake in ((requeues, by_requeueing), (retries, by_retrying)):
        ours.finish(snakemake)
        for shard in range(SHARDS):
            assert ours.starts("embed", shard) > 1
            said = (ours.folder / f"results/logs/embed-{shard}-balls.log").read_text()
            assert re.search(
                r"HandOverError: the time of this job is nearly over: .* blocks are left, \d+ were done in it", said
            )
            jobs = list((ours.folder / f"logs/slurm/rule_embed/balls_{shard}").glob("*.log"))
            assert (len(jobs) == 1) == (ours is requeues)
        check(ours, f" {ours.folder.name}")
        # The block that was begun last was finished before the time was over.
        assert [ours.redone("embed", shard) for shard in range(SHARDS)] == [0] * SHARDS


def test_out_of_memory_then_a_retry_with_more(cluster, slow, check):
    # One block takes 1200 MB more than projected; beside it are two Snakemakes and what was imported.
    ours = slow(HOG_MB="1200")
    ours.finish(ours.start(*UNTIL, "--set-resources", "embed:mem_mb=1200*attempt"))
    assert sorted(ours.starts("embed", shard) for shard in range(SHARDS)) == [1, 2]
    assert re.search("oom|out of memory|exceeded.* memory", slurm_logs(ours), re.IGNORECASE)
    check(ours)


def test_snakemake_killed_its_jobs_are_found_and_nothing_is_started_beside_them(cluster, slow, check):
    ours = slow()
    first = ours.start(*UNTIL)
    ours.half_way("embed", 0)
    ours.half_way("embed", 1)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    left = cluster.jobs()
    assert len(left) == SHARDS
    ours.finish(ours.start(*UNTIL), code=1)
    for number in left:
        assert f"Slurm job {number}" in ours.said
    assert "scancel JOB" in ours.said
    assert cluster.jobs() == left
    cluster("scancel", *left)
    wait_for(lambda: not cluster.jobs("running,completing"), "jobs to end")
    ours.finish(ours.start(*UNTIL))
    check(ours)


def slurm_logs(run) -> str:
    return "\n".join(path.read_text() for path in (run.folder / "logs/slurm").rglob("*.log"))
