"""Which blocks go out together, and which go again: the same for every executor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.engine.deadline import Closing
from spoco_blocks.engine.tasks import BATCH_SECONDS, Failure, Outcome

MAX_BATCH = 1000
# Workers that finish so nearly together finish together.
ENOUGH_SECONDS = 0.02
# A block whose workers keep dying is the reason for it: one death may be another block's, or the machine's.
MAX_DEATHS = 3

Numbers = Sequence[int] | NDArray[np.int64]


class Returned(NamedTuple):
    """What came back of a batch: the outcomes of the blocks that were run, and how often a worker died over it."""

    batch: Sequence[int]
    outcomes: Sequence[Outcome]
    deaths: int = 0


class Pool(Protocol):
    """Whatever runs batches."""

    @property
    def max_batch(self) -> int:
        """Most blocks that may go out together."""

    @property
    def slots(self) -> int:
        """Batches that may be with the pool at once, running, waiting or not taken back."""

    def submit(self, batch: Sequence[int]) -> None:
        """Hand a batch in."""

    def take(self) -> Returned:
        """Wait for a batch that was handed in, whichever comes first."""

    def __enter__(self) -> Pool: ...

    def __exit__(self, *exception: object) -> None: ...


class _Queue:
    """Blocks that are yet to run; takes batches off it whose size follows the time that blocks take."""

    def __init__(self, blocks: Numbers, max_batch: int) -> None:
        self._blocks, self._next, self._max_batch = blocks, 0, max_batch
        self._left_over: deque[int] = deque()
        self._suspects: deque[int] = deque()
        self._accused: deque[int] = deque()
        self._deaths: dict[int, int] = {}
        self._seconds: float | None = None

    def take(self, slots: int, *, alone: bool) -> list[int]:
        """Take a batch; empty when there is none, or none that may run beside others."""
        size = self._size(slots)
        if self._left_over:
            return [self._left_over.popleft() for _ in range(min(size, len(self._left_over)))]
        if self._next < len(self._blocks):
            batch = [int(block) for block in self._blocks[self._next : self._next + size]]
            self._next += len(batch)
            return batch
        if self._suspects:
            return [self._suspects.popleft()]
        return [self._accused.popleft()] if alone and self._accused else []

    def _size(self, slots: int) -> int:
        if self._seconds is None:
            return 1
        seconds = max(self._seconds, 1e-9)
        # Towards the end batches get smaller, so that workers finish together.
        remaining = len(self._blocks) - self._next + len(self._left_over)
        share = max(remaining // (2 * slots), int(ENOUGH_SECONDS / seconds))
        return max(1, min(int(BATCH_SECONDS / seconds), share, self._max_batch))

    def put_back(self, returned: Returned) -> list[Outcome]:
        """Learn from what came back; gives the outcomes that are final."""
        if returned.deaths:
            return self._after_death(returned)
        run = {outcome.block for outcome in returned.outcomes}
        self._left_over.extend(block for block in returned.batch if block not in run)
        mean = sum(outcome.seconds for outcome in returned.outcomes) / max(1, len(run))
        # Blocks that got longer count at once: a batch that is too long keeps others waiting.
        self._seconds = mean if self._seconds is None else max(mean, (self._seconds + mean) / 2)
        return list(returned.outcomes)

    def _after_death(self, returned: Returned) -> list[Outcome]:
        """Run blocks whose worker died again: one by one, then with nothing beside them, so that one is to blame."""
        final = []
        for block in returned.batch:
            before = self._deaths.get(block, 0)
            self._deaths[block] = before + returned.deaths
            if before >= MAX_DEATHS - 1:
                reason = f"its worker died {self._deaths[block]} times, out of memory?"
                final.append(Outcome(block, Failure(reason), 0.0))
            elif self._deaths[block] >= MAX_DEATHS - 1:
                self._accused.append(block)
            else:
                self._suspects.append(block)
        return final


def run_batches(
    pool: Pool, blocks: Numbers, started: Callable[[Sequence[int]], None], closing: Closing
) -> Iterator[Outcome]:
    """Run every block once and give the outcomes as they come; a failure is an outcome.

    Parameters
    ----------
    pool : Pool
        Runs them.
    blocks : sequence or ndarray of int
        Numbers of the blocks.
    started : callable
        Told which blocks are handed out, before they are.
    closing : Closing
        Tells when no more blocks may be handed out; those that were are waited for.

    Yields
    ------
    Outcome
        In the order of their ends.

    Notes
    -----
    No more batches than the pool has slots are on their way, so that memory does not depend on the number of blocks. A
    block whose worker died runs again, up to `MAX_DEATHS` times.
    """
    queue = _Queue(blocks, pool.max_batch)
    on_their_way = 0
    final: list[Outcome] = []
    while True:
        while on_their_way < pool.slots and not closing():
            if not (batch := queue.take(pool.slots, alone=not on_their_way)):
                break
            started(batch)
            pool.submit(batch)
            on_their_way += 1
        # Only now, so that workers are not idle while records are written.
        yield from final
        if not on_their_way:
            return
        final = queue.put_back(pool.take())
        for outcome in final:
            closing.finished(outcome.seconds)
        on_their_way -= 1
