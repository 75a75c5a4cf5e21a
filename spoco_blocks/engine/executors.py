"""What runs the blocks: one after the other, threads, or Dask. Never changes a result."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Literal

from spoco_blocks.engine.batches import MAX_BATCH, Pool, Returned
from spoco_blocks.engine.tasks import Outcome, Work, run_batch
from spoco_blocks.errors import ExecutorError


@dataclass(frozen=True)
class Execution:
    """How a stage may use this machine, or others.

    Attributes
    ----------
    executor : str
        "serial", "threads" or "dask" (local processes, or the workers of a scheduler).
    workers : int
        Blocks that run at once. A scheduler's workers have numbers of threads of their own, which count instead.
    memory_mb : int or None
        Memory that all workers together may use, in MiB; None = not checked.
    scheduler : str or None
        Address of a running Dask scheduler, for instance ``tcp://10.0.0.1:8786``, or ``slurm``, whose jobs
        become workers (see `job_queue`); None = local processes.
    gpus : int
        GPUs of this machine that Dask workers use, one process each, beside `workers` processes without; 0 = processes
        see this machine as it is.
    gpu_blocks : int
        Blocks at once on each GPU, a power of 2: one computes while others read and write.
    retries : int
        Further attempts at a block that failed for no reason of its own, after all others.
    deadline : float or None
        When this process will be ended, in Unix seconds: no block is begun that may not be finished by then.
    """

    executor: Literal["serial", "threads", "dask"] = "serial"
    workers: int = 1
    memory_mb: int | None = None
    scheduler: str | None = None
    gpus: int = 0
    gpu_blocks: int = 4
    retries: int = 1
    deadline: float | None = None

    def __post_init__(self) -> None:
        if min(self.workers, self.gpu_blocks) < 1 or min(self.gpus, self.retries) < 0:
            raise ExecutorError(
                f"got {self.workers} workers, {self.gpus} GPUs with {self.gpu_blocks} blocks each and {self.retries} "
                "retries; expected at least 1 worker and no negative number."
            )
        if self.executor != "dask" and (self.scheduler is not None or self.gpus):
            raise ExecutorError(
                f"executor {self.executor!r} runs blocks in this process; --scheduler and --gpus need --executor dask."
            )
        if self.scheduler is not None and self.gpus:
            raise ExecutorError(
                "--gpus starts workers on this machine, --scheduler uses workers that run already: give one of them. "
                "Start a scheduler's workers with `dask worker ADDRESS --resources gpu=1` on each GPU."
            )


def open_pool(execution: Execution, work: Work, count: int) -> Pool:
    """Give what runs the blocks of a stage.

    Parameters
    ----------
    execution : Execution
        What may be used.
    work : Work
        What is run.
    count : int
        Number of blocks.

    Raises
    ------
    ExecutorError
        When entered, where a scheduler cannot be reached or has no worker.
    """
    elsewhere = execution.scheduler is not None or (execution.gpus > 0 and work.part != "cpu")
    if execution.executor == "dask" and (elsewhere or min(execution.workers, count) > 1):
        from spoco_blocks.engine.dask_pool import DaskPool

        return DaskPool(execution, work, count)
    if execution.executor == "threads" and min(execution.workers, count) > 1:
        return _ThreadPool(work, min(execution.workers, count))
    return _SerialPool(work)


class _SerialPool:
    """Runs a batch when it is asked for."""

    slots = 1
    max_batch = MAX_BATCH

    def __init__(self, work: Work) -> None:
        self._work = work
        self._waiting: deque[Sequence[int]] = deque()

    def submit(self, batch: Sequence[int]) -> None:
        self._waiting.append(batch)

    def take(self) -> Returned:
        batch = self._waiting.popleft()
        return Returned(batch, run_batch(self._work, batch))

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self._waiting.clear()


class _ThreadPool:
    """Runs batches in threads of this process."""

    max_batch = MAX_BATCH

    def __init__(self, work: Work, workers: int) -> None:
        self._work = work
        # One waits for each that runs: records are written meanwhile.
        self.slots = 2 * workers
        self._threads = ThreadPoolExecutor(workers)
        self._batches: dict[Future[list[Outcome]], Sequence[int]] = {}
        self._finished: SimpleQueue[Future[list[Outcome]]] = SimpleQueue()

    def submit(self, batch: Sequence[int]) -> None:
        future = self._threads.submit(run_batch, self._work, batch)
        self._batches[future] = batch
        future.add_done_callback(self._finished.put)

    def take(self) -> Returned:
        future = self._finished.get()
        return Returned(self._batches.pop(future), future.result())

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self._threads.shutdown(cancel_futures=True)
