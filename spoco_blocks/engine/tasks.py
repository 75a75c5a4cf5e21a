"""What a block's work looks like to the engine, and how an attempt at it ends."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from spoco_blocks.engine.frames import Tables, pack
from spoco_blocks.errors import ResourceError, SpocoBlocksError, StoreError
from spoco_blocks.grid import Block, BlockGrid

# Long enough that handing out a batch costs nothing beside it, short enough that little is lost with it.
BATCH_SECONDS = 0.3

Part = Literal["cpu", "gpu", "halves"]


class BlockTask(Protocol):
    """The work of one block: reads `outer`, writes `inner`, gives its small tables.

    Must pickle, must not depend on any other block, and running it twice must change nothing. A task with an attribute
    ``uses_gpu = True`` runs on the workers that have a GPU, where some have.
    """

    def __call__(self, block: Block) -> Tables:
        """Do the work."""

    def memory_bytes(self, block: Block) -> int:
        """Project the memory that one block needs at most, beyond what a process takes that waits for one."""


@runtime_checkable
class WarmedBlockTask(BlockTask, Protocol):
    """Work with compiled code in it, which is kept on disk: what one process compiled, others load."""

    def warm(self) -> None:
        """Call all of it once, on next to nothing, as blocks will; reads and writes no block."""


@runtime_checkable
class FedBlockTask(BlockTask, Protocol):
    """Work in two halves, so that a GPU does not wait for what a CPU does: ``finish(block, feed(block))`` is all of it.

    Where workers have GPUs, `feed` runs on one of these and `finish` on another, which is sent what `feed` gave.
    """

    def feed(self, block: Block) -> Any:
        """Read and predict; gives what the other half needs."""

    def finish(self, block: Block, fed: Any) -> Tables:
        """Do the rest, and write."""


@dataclass(frozen=True)
class Work:
    """A task as workers see it: only numbers of blocks travel."""

    task: BlockTask
    grid: BlockGrid

    def __call__(self, index: int) -> bytes:
        """Do a whole block; its record is packed here, where many do it at once."""
        return pack(self.task(self.grid.block(index)))

    def feed(self, index: int) -> Any:
        """Do the first half of a block."""
        assert isinstance(self.task, FedBlockTask)
        return self.task.feed(self.grid.block(index))

    def finish(self, index: int, fed: Any) -> bytes:
        """Do the second half of a block, and pack its record."""
        assert isinstance(self.task, FedBlockTask)
        return pack(self.task.finish(self.grid.block(index), fed))

    @property
    def part(self) -> Part:
        """Which workers it wants: any, those with a GPU, or one of each."""
        if isinstance(self.task, FedBlockTask):
            return "halves"
        return "gpu" if getattr(self.task, "uses_gpu", False) else "cpu"


@dataclass(frozen=True)
class Failure:
    """Why an attempt at a block ended.

    Attributes
    ----------
    reason : str
        In one line.
    again : bool
        Whether another attempt may go better.
    trace : str
        Where it happened; empty for errors that say all there is to know.
    """

    reason: str
    again: bool = False
    trace: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an exception; exceptions themselves do not always survive the way from a worker."""
        if isinstance(error, SpocoBlocksError):
            # Our own errors are of settings and data, which do not change; memory and stores may be there next time.
            return cls(str(error), again=isinstance(error, ResourceError | StoreError))
        return cls(f"{type(error).__name__}: {error}", True, "".join(traceback.format_exception(error)))


class Outcome(NamedTuple):
    """A block and what came of it: its packed record (or what `feed` gave), or a `Failure`; and how long it took."""

    block: int
    result: Any
    seconds: float


def attempt(block: int, function: Callable[..., Any], *arguments: Any) -> Outcome:
    """Call a function for a block; an exception is an outcome."""
    start = time.perf_counter()
    result: Any
    try:
        result = function(block, *arguments)
    except Exception as error:
        result = Failure.of(error)
    return Outcome(block, result, time.perf_counter() - start)


def run_batch(work: Work, blocks: Sequence[int]) -> list[Outcome]:
    """Run blocks one after the other for as long as a batch may take, at least one; the others are not begun."""
    stop = time.perf_counter() + BATCH_SECONDS
    outcomes = []
    for block in blocks:
        outcomes.append(attempt(block, work))
        if time.perf_counter() > stop:
            break
    return outcomes


def feed(work: Work, block: int) -> Outcome:
    """Run the first half of a block."""
    return attempt(block, work.feed)


def finish(work: Work, fed: Outcome) -> list[Outcome]:
    """Run the second half of a block, unless the first one failed."""
    if isinstance(fed.result, Failure):
        return [fed]
    finished = attempt(fed.block, work.finish, fed.result)
    return [finished._replace(seconds=fed.seconds + finished.seconds)]
