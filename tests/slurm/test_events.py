"""What happens to jobs on a cluster: each shard loses at most the block in flight, and the arrays are the same."""

from __future__ import annotations

import os
import re
import signal

import pytest
from submitting import wait_for

pytestmark = pytest.mark.slurm

# Blocks of a quarter of a second and more: none goes out together with others, so that one is in flight.
LARGE = {"times": (4, 4, 8), "blocks": (40, 48, 64)}
BLOCKS = 128
UNTIL = ("--until", "embed")


@pytest.fixture(autouse=True)
def nothing_left(cluster):
    yield
    cluster.clear()


@pytest.fixture
def check(record_property, request, expected):
    """Check blocks and arrays, and note a line of the table."""

    def of(run, shards=2, count=BLOCKS, **how):
        redone = [run.redone("embed", shard) for shard in range(shards)]
        same = run.digests() == expected(*UNTIL, **(LARGE | how), shards=shards)
        record_property("blocks_redone", redone)
        print(f"| {request.node.name} | {redone} | {'identical' if same else 'DIFFERENT'} |")
        assert same
        assert max(redone) <= 1
        assert sum(run.done("embed", shard) for shard in range(shards)) == count

    return of


def test_requeue(cluster, run, check):
    ours = run(cluster, **LARGE)
    snakemake = ours.start(*UNTIL, "--retries", "0")
    ours.half_way("embed")
    cluster("scontrol", "requeue", cluster.job_of("embed"))
    ours.finish(snakemake)
    assert ours.starts("embed", 0) + ours.starts("embed", 1) == 3
    check(ours)


def test_scancel(cluster, run, check):
    ours = run(cluster, **LARGE)
    snakemake = ours.start(*UNTIL)
    ours.half_way("embed")
    cluster("scancel", cluster.job_of("embed"))
    ours.finish(snakemake)
    assert ours.starts("embed", 0) + ours.starts("embed", 1) == 3
    check(ours)


def test_preemption(cluster, run, check):
    ours = run(cluster, **LARGE)
    snakemake = ours.start(*UNTIL, "--retries", "0", "--set-resources", "embed:slurm_partition=scavenge")
    ours.half_way("embed", 0)
    ours.half_way("embed", 1)
    cluster("sbatch", "--partition=cpu", "--nodes=2", "--exclusive", "--time=1", "--output=/dev/null", "--wrap=sleep 1")
    ours.finish(snakemake)
    assert (ours.starts("embed", 0), ours.starts("embed", 1)) == (2, 2)
    check(ours)


def test_a_job_that_needs_more_time_than_it_has_gives_itself_back(cluster, run, check):
    how = LARGE | {"times": (4, 4, 16), "shards": 1}
    ours = run(cluster, **how)
    ours.finish(ours.start(*UNTIL, "--retries", "0", "--set-resources", "embed:runtime=1"))
    assert ours.starts("embed") > 1
    said = (ours.folder / "results/logs/embed-0-balls.log").read_text()
    assert "HandOverError: the time of this job is nearly over" in said
    check(ours, count=2 * BLOCKS, **how)


def test_where_it_may_not_give_itself_back_the_next_attempt_continues(cluster, run, check):
    how = LARGE | {"times": (4, 4, 16), "shards": 1}
    ours = run(cluster, **how)
    # What the profile's slurm-no-requeue does.
    arguments = ("--retries", "5", "--set-resources", "embed:runtime=1", "embed:slurm_extra='--no-requeue'")
    ours.finish(ours.start(*UNTIL, *arguments))
    assert ours.starts("embed") > 1
    assert re.search(
        r"HandOverError: .* blocks are left, \d+ were done in it",
        (ours.folder / "results/logs/embed-0-balls.log").read_text(),
    )
    check(ours, count=2 * BLOCKS, **how)


def test_out_of_memory_then_a_retry_with_more(cluster, run, check):
    if not cluster.cgroup:
        pytest.skip("without control groups Slurm looks at memory now and then, and may miss it")
    ours = run(cluster, **LARGE)
    # Enough for what blocks are projected to take, not for two Snakemakes beside them.
    ours.finish(ours.start(*UNTIL, "--set-resources", "embed:mem_mb=520*attempt"))
    assert "oom" in slurm_logs(ours).lower() or "out of memory" in slurm_logs(ours).lower()
    check(ours)


def test_snakemake_killed_its_jobs_are_found_and_nothing_is_started_beside_them(cluster, run, check):
    ours = run(cluster, **LARGE)
    first = ours.start(*UNTIL)
    ours.half_way("embed", 0)
    ours.half_way("embed", 1)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    left = cluster.jobs()
    assert len(left) == 2
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
