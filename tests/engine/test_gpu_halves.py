"""Halves of blocks on the workers that they are for: which process did what, with which GPU in its environment."""

from __future__ import annotations

import pytest
from block_tasks import Halves, Note, OnGpu, line_of, lines
from distributed import Nanny, Scheduler, SpecCluster

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.ledger import Records
from spoco_blocks.engine.runner import process_mb, run
from spoco_blocks.errors import BlockError, ResourceError


def sums(blocks):
    return [int(record["sum"]) for record in Records(blocks.folder, blocks.record_identity, len(blocks.grid))]


def places(folder, half):
    """Processes that did a half, and the GPU of each."""
    return {(pid, gpu) for _, pid, gpu in (line.split(" ") for line in lines(folder, f"{half}-*"))}


def test_halves_run_where_they_belong_and_few_are_between_them(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    blocks = line_of(24, tmp_path)
    execution = Execution("dask", workers=2, gpus=2, gpu_blocks=2)
    assert run(Halves(tmp_path, finish_seconds=0.1), blocks, execution).computed == 24
    assert sums(blocks) == [1000 * index for index in range(24)]
    fed, finished = places(tmp_path, "feed"), places(tmp_path, "finish")
    assert {gpu for _, gpu in fed} == {"4", "6"}
    assert len(fed) == 2
    assert {gpu for _, gpu in finished} == {""}
    assert not {pid for pid, _ in fed} & {pid for pid, _ in finished}
    begun = [(float(line.split()[0]), 1) for line in lines(tmp_path, "feed-*")]
    ended = [(float(line.split()[0]), -1) for line in lines(tmp_path, "finish-*")]
    between = most = 0
    for _, step in sorted(begun + ended):
        between += step
        most = max(most, between)
    assert len(begun) == len(ended) == 24
    assert 1 <= most <= 2 * 2 + 2


def test_a_half_that_fails_is_a_block_that_failed(tmp_path):
    blocks = line_of(4, tmp_path)
    with pytest.raises(BlockError, match=r"1 of 4 blocks failed(?s:.*)block 2 .*: no intensities"):
        run(Halves(tmp_path, fails=2), blocks, Execution("dask", workers=1, gpus=1))
    assert len(lines(tmp_path, "finish-*")) == 3


@pytest.mark.parametrize("executor", ["serial", "threads", "dask"])
def test_without_gpus_halves_are_one_whole(tmp_path, executor):
    blocks = line_of(5, tmp_path)
    run(Halves(tmp_path), blocks, Execution(executor, 2))
    assert sums(blocks) == [1000 * index for index in range(5)]
    assert places(tmp_path, "feed") == places(tmp_path, "finish")


def test_whole_tasks_go_to_the_workers_they_are_for(tmp_path):
    run(OnGpu(tmp_path), line_of(6, tmp_path), Execution("dask", workers=2, gpus=2))
    assert set(lines(tmp_path, "gpu-*")) == {"0", "1"}
    (tmp_path / "without").mkdir()
    run(Note(tmp_path / "without"), line_of(6, tmp_path / "without"), Execution("dask", workers=2, gpus=2))
    with_gpu, without = set(lines(tmp_path, "calls-*")), set(lines(tmp_path / "without", "calls-*"))
    assert len(with_gpu) == 2
    assert not with_gpu & without


def test_a_schedulers_gpus_are_used_where_its_workers_declare_them(tmp_path):
    common = {"host": "127.0.0.1", "memory_limit": 0, "dashboard": False}
    workers = {
        "a": {
            "cls": Nanny,
            "options": common | {"nthreads": 4, "resources": {"gpu": 1}, "env": {"CUDA_VISIBLE_DEVICES": "7"}},
        },
        "b": {"cls": Nanny, "options": common | {"nthreads": 1, "resources": {"cpu": 1}}},
    }
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard": False}}
    blocks = line_of(6, tmp_path)
    with SpecCluster(workers=workers, scheduler=scheduler) as cluster:
        run(Halves(tmp_path), blocks, Execution("dask", scheduler=cluster.scheduler_address))
    assert sums(blocks) == [1000 * index for index in range(6)]
    fed, finished = places(tmp_path, "feed"), places(tmp_path, "finish")
    assert {gpu for _, gpu in fed} == {"7"}
    assert not {pid for pid, _ in fed} & {pid for pid, _ in finished}


def test_memory_bounds_both_halves(tmp_path):
    """Two GPUs and four processes are too many for memory of five blocks, one of each for that of one."""
    process = process_mb(applies_network=True)
    each_mb = process + 101
    execution = Execution("dask", workers=4, gpus=2, memory_mb=process + 5 * each_mb + 95)
    summary = run(Halves(tmp_path), line_of(6, tmp_path), execution)
    assert summary.peak_memory_projected_mb == process + 5 * each_mb
    with pytest.raises(ResourceError, match=f"needs about {process + 2 * each_mb} MiB, {2 * each_mb} MiB are"):
        run(Halves(tmp_path), line_of(7, tmp_path), Execution("dask", workers=1, gpus=1, memory_mb=2 * each_mb))
