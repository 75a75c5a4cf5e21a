"""One way to run blocks: the executor never changes a result, and nothing finished is lost."""

from __future__ import annotations

import pytest
from block_tasks import Note

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.ledger import Records
from spoco_blocks.engine.runner import PROCESS_MB, Blocks, check_writable, run
from spoco_blocks.errors import BlockError, GridError, ResourceError
from spoco_blocks.grid import BlockGrid


def calls(folder):
    return {int(path.name.split("-")[1]): len(path.read_text().splitlines()) for path in folder.glob("calls-*")}


@pytest.fixture
def blocks(tmp_path):
    return Blocks(BlockGrid((4, 6, 4), (2, 2, 2)), tmp_path / "ledger", "identity")


@pytest.mark.parametrize("executor", ["serial", "threads", "dask"])
def test_every_executor_runs_every_block_once(tmp_path, blocks, executor):
    summary = run(Note(tmp_path), blocks, Execution(executor, 2))
    assert summary.computed == 12
    assert calls(tmp_path) == dict.fromkeys(range(12), 1)
    found = [int(record["square"]) for record in Records(blocks.folder, blocks.record_identity, 12)]
    assert found == [index**2 for index in range(12)]
    assert run(Note(tmp_path), blocks, Execution(executor, 2)).reused == 12
    assert calls(tmp_path) == dict.fromkeys(range(12), 1)


@pytest.mark.parametrize("executor", ["serial", "threads", "dask"])
def test_failed_blocks_are_named_and_the_others_kept(tmp_path, blocks, executor):
    for index in (3, 7):
        (tmp_path / f"fail-{index}").touch()
    with pytest.raises(
        BlockError, match=r"2 of 12 blocks failed(?s:.*)block 3 \[0:2, 2:4, 2:4\] \(2 attempts\): ValueError: bad data"
    ):
        run(Note(tmp_path), blocks, Execution(executor, 2))
    assert sorted(calls(tmp_path)) == [i for i in range(12) if i not in (3, 7)]
    for index in (3, 7):
        (tmp_path / f"fail-{index}").unlink()
    assert run(Note(tmp_path), blocks, Execution(executor, 2)).computed == 2
    assert calls(tmp_path) == dict.fromkeys(range(12), 1)


def test_shards_and_selections_run_their_own_blocks(tmp_path, blocks):
    part = Blocks(blocks.grid, blocks.folder, "identity", shard=1, shards=3)
    assert run(Note(tmp_path), part, Execution()).computed == 4
    assert sorted(calls(tmp_path)) == [4, 5, 6, 7]
    chosen = Blocks(blocks.grid, blocks.folder, "identity", only=(0, 5))
    assert run(Note(tmp_path), chosen, Execution()).computed == 1
    assert sorted(calls(tmp_path)) == [0, 4, 5, 6, 7]


def test_a_change_of_grid_or_identity_reuses_nothing(tmp_path, blocks):
    run(Note(tmp_path), blocks, Execution())
    other = Blocks(BlockGrid((4, 6, 4), (2, 2, 2), halo=(1, 1, 1)), blocks.folder, "identity")
    assert run(Note(tmp_path), other, Execution()).computed == 12


def test_too_much_memory_is_refused_before_any_work(tmp_path, blocks):
    with pytest.raises(ResourceError, match=f"needs about {PROCESS_MB + 101} MiB, {PROCESS_MB + 90} MiB are given"):
        run(Note(tmp_path, megabytes=100), blocks, Execution("threads", 2, memory_mb=PROCESS_MB + 90))
    assert not calls(tmp_path)
    summary = run(Note(tmp_path, megabytes=100), blocks, Execution("threads", 2, memory_mb=PROCESS_MB + 150))
    assert (summary.computed, summary.peak_memory_projected_mb) == (12, PROCESS_MB + 101)


class PerVoxel(Note):
    """Takes a MiB for each voxel."""

    def memory_bytes(self, block):
        return block.outer.size * 2**20


@pytest.mark.parametrize(("extent", "voxels"), [(8, 8), (10, 9), (16, 9), (18, 10)])
def test_memory_is_that_of_the_largest_block(tmp_path, extent, voxels):
    """Along an axis of 8-voxel blocks with a halo of 1: one, a whole one beside a thin one, two, three."""
    blocks = Blocks(BlockGrid((extent, 1, 1), (8, 1, 1), (1, 0, 0)), tmp_path / "ledger", "identity")
    assert run(PerVoxel(tmp_path), blocks, Execution()).peak_memory_projected_mb == PROCESS_MB + voxels + 1


def test_processes_need_memory_of_their_own(tmp_path, blocks):
    summary = run(Note(tmp_path, megabytes=100), blocks, Execution("dask", 2, memory_mb=4 * PROCESS_MB))
    assert summary.peak_memory_projected_mb == PROCESS_MB + 2 * (PROCESS_MB + 101)


def test_blocks_must_hold_whole_shards():
    check_writable(BlockGrid((64, 64, 64), (32, 32, 32)), (16, 32, 32))
    check_writable(BlockGrid((20, 64, 64), (20, 32, 32)), (64, 32, 32))
    with pytest.raises(GridError, match=r"Use \(64, 256, 256\)"):
        check_writable(BlockGrid((512, 512, 512), (64, 250, 256)), (64, 256, 256))
