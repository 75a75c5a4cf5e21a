"""Short blocks go out together, long ones do not, and no more are on their way than there is room for."""

from __future__ import annotations

import pytest
from block_tasks import Empty, Note, Slow, line_of, lines

from spoco_blocks.engine.batches import MAX_BATCH, run_batches
from spoco_blocks.engine.deadline import Closing
from spoco_blocks.engine.executors import Execution, open_pool
from spoco_blocks.engine.tasks import Work


def run_and_watch(task, count, folder, execution):
    """Run blocks; give the batches in order, and how many blocks were on their way at each of them."""
    batches, on_their_way, out = [], [], set()

    def started(batch):
        batches.append(list(batch))
        out.update(batch)
        on_their_way.append(len(out))

    blocks = range(count)
    with open_pool(execution, Work(task, line_of(count, folder).grid), count) as pool:
        for outcome in run_batches(pool, blocks, started, Closing(None, waves=2)):
            out.remove(outcome.block)
        slots = pool.slots
    assert not out
    return batches, on_their_way, slots


@pytest.mark.parametrize("executor", ["serial", "threads", "dask"])
def test_short_blocks_go_out_in_batches_and_each_of_them_once(tmp_path, executor):
    batches, on_their_way, slots = run_and_watch(Empty(), 20000, tmp_path, Execution(executor, 2))
    assert sorted(block for batch in batches for block in batch) == list(range(20000))
    assert len(batches[0]) == 1
    assert max(len(batch) for batch in batches) == MAX_BATCH
    assert len(batches) < 200
    # What came back last is read while the next batches run.
    assert max(on_their_way) <= (slots + 1) * MAX_BATCH


def test_the_last_batches_are_small_so_that_workers_finish_together(tmp_path):
    batches, _, slots = run_and_watch(Slow(tmp_path, seconds=0.01), 200, tmp_path, Execution("threads", 2))
    assert max(map(len, batches)) > 3
    assert max(map(len, batches[-slots:])) <= 3


@pytest.mark.parametrize("executor", ["serial", "threads"])
def test_long_blocks_go_out_alone(tmp_path, executor):
    batches, on_their_way, slots = run_and_watch(Slow(tmp_path, seconds=0.16), 10, tmp_path, Execution(executor, 2))
    assert batches == [[block] for block in range(10)]
    assert max(on_their_way) <= slots + 1


def test_a_batch_ends_early_where_blocks_turn_out_long(tmp_path):
    """A thousand blocks of nothing, then ones that take long: those behind a long one are handed out anew, alone."""

    class Turning(Note):
        def __call__(self, block):
            return Slow(self.folder, seconds=0.31)(block) if block.index >= 1000 else {}

    batches, _, _ = run_and_watch(Turning(tmp_path), 1010, tmp_path, Execution("serial"))
    assert {len(lines(tmp_path, f"calls-{block}")) for block in range(1000, 1010)} == {1}
    long = [batch for batch in batches if batch[0] >= 1000]
    assert len(long) >= 5
    # The first of them came in the batch of a time when all were short.
    assert sum(len(batch) > 1 for batch in long) <= 3
