"""What happens to workers and attempts never changes a result, and nothing finished is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from block_tasks import Empty, Flaky, Killer, Note, Warmed, line_of, lines
from distributed import LocalCluster

from spoco_blocks.engine import dask_pool
from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.frames import DONE, FAILED, read_frames
from spoco_blocks.engine.ledger import Records
from spoco_blocks.engine.runner import run
from spoco_blocks.errors import BlockError, ExecutorError


def frames(blocks):
    with (blocks.folder / "shard-0.ledger").open("rb") as file:
        file.readline()
        return list(read_frames(file))


def done(blocks):
    return Records(blocks.folder, blocks.record_identity, 0).finished


@pytest.mark.parametrize("executor", ["serial", "threads", "dask"])
def test_what_failed_once_succeeds_after_all_others(tmp_path, executor):
    blocks = line_of(6, tmp_path)
    assert run(Flaky(tmp_path), blocks, Execution(executor, 2)).computed == 6
    ends = [(frame.kind, frame.block) for frame in frames(blocks) if frame.kind in (DONE, FAILED)]
    assert {block for kind, block in ends if kind == FAILED} == {0, 3}
    assert {block for _, block in ends[-2:]} == {0, 3}
    assert {frame.reason for frame in frames(blocks) if frame.kind == FAILED} == {"OSError: connection lost"}
    assert done(blocks) == list(range(6))


@pytest.mark.parametrize(("executor", "warmed"), [("serial", []), ("threads", []), ("dask", [f"{os.getpid()} 0"])])
def test_what_workers_would_all_compile_is_compiled_once_before_they_start(tmp_path, executor, warmed):
    run(Warmed(tmp_path), line_of(3, tmp_path), Execution(executor, 2))
    assert lines(tmp_path, "warmed") == warmed
    assert len(lines(tmp_path, "calls-*")) == 3


@pytest.mark.parametrize(("ours", "retries", "calls"), [(True, 1, 1), (False, 0, 1), (False, 3, 2)])
def test_only_what_may_go_better_is_tried_again(tmp_path, ours, retries, calls):
    blocks = line_of(3, tmp_path)
    if calls == 1:
        with pytest.raises(
            BlockError, match=r"1 of 3 blocks failed.* Run the same command again(?s:.*)block 0 \[.*\]: "
        ):
            run(Flaky(tmp_path, ours=ours), blocks, Execution(retries=retries))
    run(Flaky(tmp_path, ours=ours), blocks, Execution(retries=retries))
    assert len(lines(tmp_path, "calls-0")) == 2
    assert len(lines(tmp_path, "calls-1")) == 1


def test_reasons_of_all_attempts_are_told(tmp_path):
    (tmp_path / "fail-1").touch()
    with pytest.raises(BlockError, match=r"block 1 \[0:1, 0:1, 1:2\] \(3 attempts\): ValueError: bad data"):
        run(Note(tmp_path), line_of(2, tmp_path), Execution(retries=2))


def test_a_killed_worker_costs_what_it_was_doing(tmp_path):
    blocks = line_of(12, tmp_path)
    assert run(Killer(tmp_path), blocks, Execution("dask", 2)).computed == 12
    assert done(blocks) == list(range(12))
    assert len(lines(tmp_path, "deaths")) == 1


def test_a_block_that_kills_its_workers_fails_and_no_other(tmp_path):
    blocks = line_of(8, tmp_path)
    with pytest.raises(BlockError, match=r"1 of 8 blocks failed(?s:.*)block 3 .*: its worker died 3 times"):
        run(Killer(tmp_path, times=99), blocks, Execution("dask", 2))
    assert done(blocks) == [0, 1, 2, 4, 5, 6, 7]
    assert len(lines(tmp_path, "deaths")) == 3


def test_workers_of_a_scheduler_do_the_work(tmp_path):
    blocks = line_of(8, tmp_path)
    with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None, memory_limit=0) as cluster:
        pids = {worker.process.pid for worker in cluster.workers.values()}
        assert run(Note(tmp_path), blocks, Execution("dask", scheduler=cluster.scheduler_address)).computed == 8
    assert {int(pid) for pid in lines(tmp_path, "calls-*")} <= pids
    assert done(blocks) == list(range(8))


@contextmanager
def program(*arguments):
    # What the tests import, a scheduler and workers elsewhere must be able to import.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


CLUSTER = """
import time
from distributed import LocalCluster
if __name__ == "__main__":
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, memory_limit=0)
    print(cluster.scheduler_address, flush=True)
    time.sleep(300)
"""


def test_a_lost_scheduler_is_told_and_what_was_finished_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(dask_pool, "PATIENCE_S", 5.0)
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER)
    blocks = line_of(6, tmp_path)
    with program(str(script)) as cluster:
        address = cluster.stdout.readline().strip()
        with pytest.raises(ExecutorError, match=r"lost the Dask scheduler of tcp://.* run the same command again"):
            run(Killer(tmp_path, victim=cluster.pid), blocks, Execution("dask", scheduler=address))
        assert cluster.wait(10) == -signal.SIGKILL
    kept = done(blocks)
    # What came of block 2 may have been on its way.
    assert kept in ([0, 1], [0, 1, 2])
    assert run(Note(tmp_path), blocks, Execution()).computed == 6 - len(kept)


def test_when_no_worker_is_left_that_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(dask_pool, "PATIENCE_S", 4.0)
    blocks = line_of(6, tmp_path)
    with LocalCluster(n_workers=0, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        with program("-m", "distributed.cli.dask_worker", address, "--no-nanny", "--nthreads", "1", "--no-dashboard"):
            cluster.wait_for_workers(1, timeout=60)
            with pytest.raises(ExecutorError, match=r"no Dask worker of tcp://.* has been there for 4 s"):
                run(Killer(tmp_path, times=99), blocks, Execution("dask", scheduler=address))
    assert done(blocks) in ([0, 1], [0, 1, 2])


def test_a_wrong_address_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(dask_pool, "PATIENCE_S", 1.0)
    with pytest.raises(ExecutorError, match=r"no Dask scheduler with workers at tcp://127\.0\.0\.1:9"):
        run(Empty(), line_of(2, tmp_path), Execution("dask", scheduler="tcp://127.0.0.1:9"))


def test_numbers_that_cannot_be_meant_are_refused():
    """With less than no retries there would be no attempt at all, and no failure either."""
    for given in ({"retries": -1}, {"workers": 0}, {"executor": "dask", "gpus": -1}):
        with pytest.raises(ExecutorError, match="expected at least 1 worker and no negative number"):
            Execution(**given)


@pytest.mark.parametrize(
    "given", [{"executor": "threads", "gpus": 1}, {"executor": "serial", "scheduler": "tcp://h:1"}]
)
def test_what_needs_dask_says_so(given):
    with pytest.raises(ExecutorError, match="need --executor dask"):
        Execution(**given)
