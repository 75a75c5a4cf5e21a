"""The one way blocks are run: check, skip what is done, execute, commit, report what failed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spoco_blocks.engine.batches import Numbers, run_batches
from spoco_blocks.engine.deadline import Closing
from spoco_blocks.engine.executors import Execution, open_pool
from spoco_blocks.engine.ledger import Ledger
from spoco_blocks.engine.progress import RunProgress
from spoco_blocks.engine.tasks import BlockTask, Failure, Part, WarmedBlockTask, Work
from spoco_blocks.errors import BlockError, GridError, HandOverError, ResourceError
from spoco_blocks.grid import BlockGrid, Triple, triple
from spoco_blocks.settings.jobs import digest

log = logging.getLogger(__name__)

# A process that has imported numba and Zarr, and has loaded compiled code and opened stores, resident.
PROCESS_MB = 280
# What PyTorch adds, where the network is applied.
PYTORCH_MB = 140

# Blocks that an error names; thousands may fail for one reason.
NAMED = 10


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
    """What a run did.

    Attributes
    ----------
    computed, reused : int
        Blocks computed now, and blocks that were done before.
    peak_memory_projected_mb : int
        Memory that the workers were thought to need together, in MiB.
    work_s : float
        Seconds of all blocks in this shard's records, one after the other.
    """

    computed: int
    reused: int
    peak_memory_projected_mb: int
    work_s: float


def run(task: BlockTask, blocks: Blocks, execution: Execution) -> Summary:
    """Run the blocks of a shard that are not done yet.

    Raises
    ------
    ResourceError
        Before any work, when one block is projected to need more memory than is given.
    BlockError
        After the other blocks are finished, when some failed; their work is kept.
    HandOverError
        When the deadline came before all blocks were begun; those that were are finished.
    LedgerError
        When another process runs this shard.
    """
    work = Work(task, blocks.grid)
    with Ledger(blocks.folder, f"shard-{blocks.shard}", blocks.record_identity) as ledger:
        mine = np.asarray(blocks.mine, np.int64)
        todo = mine[~np.isin(mine, ledger.done())]
        execution, memory_mb = _fit_memory(work, len(todo), execution)
        if len(mine) > len(todo):
            log.info("%d of %d blocks were done before", len(mine) - len(todo), len(mine))
        failed: dict[int, list[Failure]] = {}
        done = 0
        if len(todo):
            facts = {"todo": len(todo), "blocks": len(mine), "shard": blocks.shard, "shards": blocks.shards}
            ledger.begin(facts | {"executor": execution.executor, "workers": execution.workers})
            done, failed = _run_all(work, todo, ledger, execution)
    left = len(todo) - done - len(failed)
    if left:
        raise HandOverError(_describe_left(left, len(mine), done, len(failed)), advanced=done > 0)
    if failed:
        raise BlockError(_describe(failed, blocks.grid, len(todo)))
    return Summary(len(todo), len(mine) - len(todo), memory_mb, round(ledger.work_s, 3))


def _run_all(work: Work, todo: Numbers, ledger: Ledger, execution: Execution) -> tuple[int, dict[int, list[Failure]]]:
    """Run blocks, and those that failed again after all others, until all are done or the deadline is near.

    Gives how many are done now, and the attempts at those that failed.
    """
    failed: dict[int, list[Failure]] = {}
    done = 0
    if execution.executor == "dask" and isinstance(work.task, WarmedBlockTask):
        # Or every worker would compile the same.
        work.task.warm()
    with open_pool(execution, work, len(todo)) as pool, RunProgress(len(todo)) as progress:
        closing = Closing(execution.deadline, waves=1 if pool.slots == 1 else 2)
        blocks: Numbers = todo
        for attempt in range(1 + execution.retries):
            for index, result, seconds in run_batches(pool, blocks, ledger.started, closing):
                if isinstance(result, Failure):
                    _note_failure(index, result, work.grid, attempt, first=not failed)
                    failed.setdefault(index, []).append(result)
                    ledger.failed(index, result.reason, seconds)
                else:
                    ledger.commit(index, result, seconds)
                    failed.pop(index, None)
                    done += 1
                progress.update(done, len(failed))
            blocks = sorted(index for index, failures in failed.items() if failures[-1].again)
            if not blocks or closing():
                break
    return done, failed


def _note_failure(index: int, failure: Failure, grid: BlockGrid, attempt: int, *, first: bool) -> None:
    # A thousand blocks that fail for one reason need its place in the code once.
    trace = f"\n{failure.trace}" if first and failure.trace else ""
    again = f" in attempt {attempt + 1}" if attempt else ""
    log.error("block %d %s failed%s: %s%s", index, grid.block(index).inner, again, failure.reason, trace)


def process_mb(*, applies_network: bool) -> int:
    """Give the memory of a process that waits for a block, in MiB."""
    return PROCESS_MB + (PYTORCH_MB if applies_network else 0)


def _fit_memory(work: Work, count: int, execution: Execution) -> tuple[Execution, int]:
    """Take as many workers as memory allows: their number never changes a result."""
    grid = work.grid
    # Of two blocks along an axis, the second may be cut by the volume's edge.
    middle = grid.block(grid.index(triple((n - 1) // 2 for n in grid.counts)))
    each_mb = work.task.memory_bytes(middle) // 2**20 + 1
    part = work.part if execution.gpus else "cpu"
    gpus = 0 if part == "cpu" else min(execution.gpus, max(1, count))
    wanted = replace(execution, workers=max(1, min(execution.workers, count)), gpus=gpus)
    # What this process takes, and every other one that it starts.
    fixed_mb = process_mb(applies_network=work.part != "cpu")
    if execution.executor == "dask" and execution.scheduler is None:
        each_mb += fixed_mb
    if execution.memory_mb is None:
        return wanted, fixed_mb + each_mb * _at_once(wanted, part)
    # Where a block has two halves, one is fed while another is finished.
    least_mb = fixed_mb + each_mb * (2 if part == "halves" else 1)
    if least_mb > execution.memory_mb:
        raise ResourceError(
            f"a block of {grid.block_shape} voxels with its halo {grid.halo} needs about {least_mb} MiB, "
            f"{execution.memory_mb} MiB are given. Use smaller blocks (segmentations.NAME.blocks.shape_voxels) or "
            "give more memory (snakemake --set-resources RULE:mem_mb=MIB)."
        )
    if execution.scheduler is not None:
        return wanted, fixed_mb + each_mb * _at_once(wanted, part)
    fitting = _within(wanted, part, (execution.memory_mb - fixed_mb) // each_mb)
    if fitting != wanted:
        at_once, before = _at_once(fitting, part), _at_once(wanted, part)
        log.info("%d blocks at once instead of %d: each needs about %d MiB", at_once, before, each_mb)
    return fitting, fixed_mb + each_mb * _at_once(fitting, part)


def _at_once(execution: Execution, part: Part) -> int:
    on_gpus = execution.gpus * execution.gpu_blocks
    return on_gpus + (0 if part == "gpu" else execution.workers)


def _within(execution: Execution, part: Part, room: int) -> Execution:
    """Let GPUs give up what they overlap first, then GPUs go, then workers without."""
    gpus, gpu_blocks, least = execution.gpus, execution.gpu_blocks, 0 if part == "gpu" else 1
    while gpus * gpu_blocks + least > room and gpu_blocks > 1:
        gpu_blocks //= 2
    gpus = min(gpus, room - least)
    workers = execution.workers if part == "gpu" else min(execution.workers, room - gpus * gpu_blocks)
    return replace(execution, gpus=gpus, gpu_blocks=gpu_blocks, workers=workers)


def _describe_left(left: int, count: int, done: int, failed: int) -> str:
    also = f" ({failed} failed)" if failed else ""
    text = f"the time of this job is nearly over: {left} of {count} blocks are left, {done} were done in it{also}. "
    again = "Start it again: it continues there."
    if done:
        return text + again
    return f"{text}That is too short: give the job more time (snakemake --set-resources RULE:runtime=MINUTES)."


def _describe(failed: dict[int, list[Failure]], grid: BlockGrid, count: int) -> str:
    lines = [
        f"{len(failed)} of {count} blocks failed; the others are done and kept. Run the same command again: it retries "
        "these blocks only."
    ]
    for index, failures in sorted(failed.items())[:NAMED]:
        reasons = list(dict.fromkeys(failure.reason for failure in failures))
        tried = f" ({len(failures)} attempts)" if len(failures) > 1 else ""
        lines.append(f"  block {index} {grid.block(index).inner}{tried}: {'; before that: '.join(reasons[::-1])}")
    if len(failed) > NAMED:
        lines.append(f"  and {len(failed) - NAMED} more; `spoco-blocks status` names them.")
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
