"""The one way blocks are run: check, skip what is done, execute, commit, report what failed."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from spoco_blocks.engine.executors import Execution, execute
from spoco_blocks.engine.ledger import Ledger, Tables
from spoco_blocks.errors import BlockError, GridError, ResourceError
from spoco_blocks.grid import Block, BlockGrid, Triple, triple
from spoco_blocks.settings.jobs import digest

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


class BlockTask(Protocol):
    """The work of one block: reads `outer`, writes `inner`, gives its small tables.

    Must pickle, must not depend on any other block, and running it twice must change nothing.
    """

    def __call__(self, block: Block) -> Tables:
        """Do the work."""

    def memory_bytes(self, block: Block) -> int:
        """Project the memory that one block needs at most."""


@dataclass(frozen=True)
class Blocks:
    """A stage's blocks and where their records lie.

    Attributes
    ----------
    grid : BlockGrid
        All blocks of the stage.
    folder : Path
        Folder of the ledgers.
    identity : str
        Digest of stage, version, settings and inputs; the grid is added here.
    shard, shards : int
        The part of the blocks to run.
    only : tuple of int or None
        Run no other blocks than these.
    """

    grid: BlockGrid
    folder: Path
    identity: str
    shard: int = 0
    shards: int = 1
    only: tuple[int, ...] | None = None

    @property
    def mine(self) -> Sequence[int]:
        """Numbers of the blocks of this shard."""
        whole = self.grid.shard(self.shard, self.shards)
        return whole if self.only is None else [index for index in self.only if index in whole]

    @property
    def record_identity(self) -> str:
        """Digest that a record of these blocks carries."""
        grid = self.grid
        return digest(self.identity, grid.shape, grid.block_shape, grid.halo, grid.alignment)


@dataclass(frozen=True)
class Summary:
    """What a run did: blocks computed now, and blocks that were done before."""

    computed: int
    reused: int
    peak_memory_projected_mb: int


@dataclass(frozen=True)
class _OneBlock:
    """The task as the executors see it: only numbers travel."""

    task: BlockTask
    grid: BlockGrid

    def __call__(self, index: int) -> Tables:
        return self.task(self.grid.block(index))


def run(task: BlockTask, blocks: Blocks, execution: Execution) -> Summary:
    """Run the blocks of a shard that are not done yet.

    Raises
    ------
    ResourceError
        Before any work, when one block is projected to need more memory than is given.
    BlockError
        After the other blocks are finished, when some failed; their work is kept.
    LedgerError
        When another process runs this shard.
    """
    with Ledger(blocks.folder, f"shard-{blocks.shard}", blocks.record_identity) as ledger:
        done = ledger.done()
        mine = blocks.mine
        todo = [index for index in mine if index not in done]
        execution, memory_mb = _fit_memory(task, blocks.grid, len(todo), execution)
        if len(mine) > len(todo):
            log.info("%d of %d blocks were done before", len(mine) - len(todo), len(mine))
        failed = _run_all(task, blocks.grid, todo, ledger, execution)
    if failed:
        raise BlockError(_describe(failed, blocks.grid, len(todo)))
    return Summary(len(todo), len(mine) - len(todo), memory_mb)


def _run_all(
    task: BlockTask, grid: BlockGrid, todo: Sequence[int], ledger: Ledger, execution: Execution
) -> dict[int, BaseException]:
    failed: dict[int, BaseException] = {}
    start = spoken = time.monotonic()
    for count, (index, outcome) in enumerate(execute(execution, _OneBlock(task, grid), todo), 1):
        if isinstance(outcome, BaseException):
            failed[index] = outcome
            log.error("block %d %s failed: %r", index, grid.block(index).inner, outcome)
        else:
            ledger.commit(index, outcome)
        now = time.monotonic()
        if count == len(todo) or now - spoken > SECONDS_BETWEEN_LINES:
            rate = count / max(now - start, 1e-9)
            log.info("%d of %d blocks, %.2f a second, %.0f s left", count, len(todo), rate, (len(todo) - count) / rate)
            spoken = now
    return failed


def _fit_memory(task: BlockTask, grid: BlockGrid, count: int, execution: Execution) -> tuple[Execution, int]:
    """Take as many workers as memory allows: their number never changes a result."""
    middle = grid.block(grid.index(triple(n // 2 for n in grid.counts)))
    each_mb = task.memory_bytes(middle) // 2**20 + 1
    workers = max(1, min(execution.workers, count))
    if execution.memory_mb is not None:
        if each_mb > execution.memory_mb:
            raise ResourceError(
                f"a block of {grid.block_shape} voxels with its halo {grid.halo} needs about {each_mb} MiB, "
                f"{execution.memory_mb} MiB are given. Use smaller blocks (segmentations.NAME.blocks.shape_voxels) or "
                "give more memory (snakemake --set-resources RULE:mem_mb=MIB)."
            )
        workers = min(workers, execution.memory_mb // each_mb)
    if workers < min(execution.workers, count):
        log.info("%d workers instead of %d: each needs about %d MiB", workers, execution.workers, each_mb)
    return replace(execution, workers=workers), each_mb * workers


def _describe(failed: dict[int, BaseException], grid: BlockGrid, count: int) -> str:
    lines = [f"{len(failed)} of {count} blocks failed; the others are done and kept. Run the stage again to retry."]
    lines += [f"  block {index} {grid.block(index).inner}: {error}" for index, error in sorted(failed.items())[:10]]
    return "\n".join(lines)


def check_writable(grid: BlockGrid, shard_shape: Triple) -> None:
    """Check that no two blocks write the same shard of a store.

    Raises
    ------
    GridError
        With a block shape that would do.
    """
    if any(b % s and b < extent for b, s, extent in zip(grid.block_shape, shard_shape, grid.shape, strict=True)):
        good = tuple(-(-b // s) * s for b, s in zip(grid.block_shape, shard_shape, strict=True))
        raise GridError(
            f"block shape {grid.block_shape} is not a multiple of the output's write shape {shard_shape}; two blocks "
            f"would write the same shard. Use {good}."
        )
