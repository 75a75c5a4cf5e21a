"""Batches on Dask workers: processes of this machine, jobs of Slurm, or whatever workers a scheduler has."""

from __future__ import annotations

import logging
import os
import pickle
import time
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from queue import Empty, SimpleQueue
from typing import Any

import dask
from distributed import Client, Future, KilledWorker, Nanny, Scheduler, SpecCluster

from spoco_blocks.engine.batches import MAX_BATCH, Pool, Returned
from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.job_queue import SLURM, check_jobs, most_jobs, open_jobs, wait_for_first
from spoco_blocks.engine.tasks import Failure, Outcome, Work, feed, finish, run_batch
from spoco_blocks.errors import ExecutorError

# How long to wait for a scheduler, and to do without any worker: longer than a worker takes to start again.
PATIENCE_S = 60.0
TICK_S = 1.0
# Records are small: what has not come by then is not on its way.
GATHER_S = 10.0
SECONDS_BETWEEN_COUNTS = 5.0
START_AGAIN = "What was finished is kept: run the same command again when they are back."


class DaskPool:
    """Runs batches on Dask workers; counts deaths of workers, and tells when all are lost."""

    def __init__(self, execution: Execution, work: Work, count: int) -> None:
        self._execution, self._work, self._count = execution, work, count
        self._finished: SimpleQueue[Future] = SimpleQueue()
        self._batches: dict[str, Sequence[int]] = {}
        self._open = ExitStack()
        self._last_seen = self._counted = time.monotonic()
        self._slots = 1
        # Where workers are jobs, which may have to wait until they start.
        self._jobs: SpecCluster | None = None
        self._first: dict[str, float] = {}
        self._second: dict[str, float] | None = None

    @property
    def max_batch(self) -> int:
        """Most blocks of a batch; one where halves travel, whose number is what bounds memory."""
        return MAX_BATCH if self._second is None else 1

    def __enter__(self) -> Pool:
        # Importing it sets its level to INFO: a dozen lines for each cluster that starts and ends.
        logging.getLogger("distributed").setLevel(logging.WARNING)
        try:
            if self._execution.scheduler is None:
                # Every death is counted here, where it is known which blocks were together.
                options = {"distributed.worker.daemon": True, "distributed.scheduler.allowed-failures": 0}
                self._open.enter_context(dask.config.set(options))
                address = self._open.enter_context(_local_cluster(self._execution, self._work, self._count))
            elif self._execution.scheduler == SLURM:
                address = self._jobs = self._open.enter_context(open_jobs())
            else:
                address = self._execution.scheduler
            self._client = self._connect(address)
            self._choose_workers()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def _connect(self, address: Any) -> Client:
        try:
            client = self._open.enter_context(Client(address, timeout=PATIENCE_S, set_as_default=False))
            if self._jobs is not None:
                wait_for_first(client, self._jobs)
            else:
                client.wait_for_workers(1, timeout=PATIENCE_S)
        except (OSError, TimeoutError, ValueError) as error:
            raise ExecutorError(
                f"no Dask scheduler with workers at {address} ({type(error).__name__}: {error}). Expected an "
                "address such as tcp://HOST:8786 of a running `dask scheduler` and at least one `dask worker ADDRESS`, "
                "or slurm."
            ) from None
        return client

    def _choose_workers(self) -> None:
        """Decide which resources the task takes; where no worker declares a GPU it runs whole, anywhere."""
        declared = {name for worker in self._workers() for name in worker["resources"]}
        on_gpu = {"gpu": 1 / self._execution.gpu_blocks}
        elsewhere: dict[str, float] = {"cpu": 1} if "cpu" in declared else {}
        if "gpu" in declared:
            self._first = elsewhere if self._work.part == "cpu" else on_gpu
            self._second = elsewhere if self._work.part == "halves" else None
        self._slots = self._count_slots()

    def _workers(self) -> list[dict[str, Any]]:
        try:
            return list(self._client.scheduler_info()["workers"].values())
        except (OSError, TimeoutError):
            raise self._lost() from None

    def _lost(self) -> ExecutorError:
        where = self._execution.scheduler or "this machine"
        return ExecutorError(f"lost the Dask scheduler of {where}, and {len(self._batches)} batches. {START_AGAIN}")

    def _count_slots(self) -> int:
        workers = self._workers()
        if self._jobs is not None and self._second is None:
            # More jobs are started where more is waiting than those that are there can do.
            room = max([1, *(_room(worker, self._first) for worker in workers)])
            return 2 * room * most_jobs()
        if self._second is not None:
            # What is fed waits in memory, so there is no more of it than can be fed and finished at once.
            return max(1, sum(_room(worker, need) for need in (self._first, self._second) for worker in workers))
        # One waits for each that runs, so that a worker is not idle while its next batch is on its way.
        return max(1, 2 * sum(_room(worker, self._first) for worker in workers))

    @property
    def slots(self) -> int:
        """Batches that keep the workers busy that are there now; they may come and go."""
        if time.monotonic() > self._counted + SECONDS_BETWEEN_COUNTS:
            self._slots, self._counted = self._count_slots(), time.monotonic()
        return self._slots

    def submit(self, batch: Sequence[int]) -> None:
        """Hand a batch in."""
        if self._second is None:
            future = self._client.submit(_run_batch, self._work, array("q", batch), pure=False, resources=self._first)
        else:
            (block,) = batch
            fed = self._client.submit(feed, self._work, block, pure=False, resources=self._first)
            future = self._client.submit(finish, self._work, fed, pure=False, resources=self._second)
        self._batches[future.key] = batch
        future.add_done_callback(self._finished.put)

    def take(self) -> Returned:
        """Wait for a batch.

        Raises
        ------
        ExecutorError
            When the scheduler or all workers are lost.
        """
        while True:
            try:
                future = self._finished.get(timeout=TICK_S)
            except Empty:
                self._check_workers()
                continue
            if future.status in {"pending", "lost"} and self._client.status == "running":
                # Its worker died when it was done, and took the result with it: Dask runs it again.
                self._check_workers()
                future.add_done_callback(self._finished.put)
                continue
            if future.status not in {"finished", "error"}:
                raise self._lost()
            try:
                returned = self._returned(future)
            except (TimeoutError, OSError):
                # Its worker died before it could tell: Dask runs it again, which takes as long as it takes.
                self._check_workers()
                future.add_done_callback(self._finished.put)
                continue
            del self._batches[future.key]
            self._last_seen = time.monotonic()
            return returned

    def _returned(self, future: Future) -> Returned:
        batch = self._batches[future.key]
        error: BaseException | None
        try:
            error = future.exception(timeout=GATHER_S)
            if error is None:
                result = future.result(timeout=GATHER_S)
                return Returned(batch, pickle.loads(result) if self._second is None else result)
        except KilledWorker as killed:
            error = killed
        if isinstance(error, KilledWorker):
            return Returned(batch, [], deaths=error.allowed_failures + 1)
        return Returned(batch, [Outcome(block, Failure.of(error), 0.0) for block in batch])

    def _check_workers(self) -> None:
        if self._client.status != "running":
            raise self._lost()
        now = time.monotonic()
        if self._workers():
            self._last_seen = now
        elif now > self._last_seen + PATIENCE_S:
            if self._jobs is not None:
                self._last_seen = now
                check_jobs(self._jobs)
                return
            where = self._execution.scheduler or "this machine"
            raise ExecutorError(f"no Dask worker of {where} has been there for {PATIENCE_S:.0f} s. {START_AGAIN}")


def _run_batch(work: Work, blocks: array[int]) -> bytes:
    # Dask looks into every item of a list on its way; these are a thousand small ones.
    return pickle.dumps(run_batch(work, blocks.tolist()))


def _room(worker: dict[str, Any], need: dict[str, float]) -> int:
    """Tell how many tasks of a need fit on a worker at once."""
    threads = int(worker["nthreads"])
    return min([threads, *(int(worker["resources"].get(name, 0) / amount) for name, amount in need.items())])


def _local_cluster(execution: Execution, work: Work, count: int) -> SpecCluster:
    # The projection of the runner bounds memory; Dask's own limit would pause workers on what zarr and torch cache.
    common = {"host": "127.0.0.1", "memory_limit": 0, "dashboard": False, "silence_logs": logging.CRITICAL}
    with_gpus = execution.gpus > 0 and work.part != "cpu"
    workers: dict[str, Any] = {}
    for number in range(execution.gpus if with_gpus else 0):
        options = {"nthreads": execution.gpu_blocks, "resources": {"gpu": 1}, "env": _environment(number)}
        workers[f"gpu-{number}"] = {"cls": Nanny, "options": common | options}
    for number in range(min(execution.workers, count) if work.part == "halves" or not with_gpus else 0):
        options = {"resources": {"cpu": 1}, "env": {"CUDA_VISIBLE_DEVICES": ""}} if with_gpus else {}
        workers[f"cpu-{number}"] = {"cls": Nanny, "options": common | {"nthreads": 1} | options}
    # It serves its state over HTTP even without a dashboard: here only, and where no other run does.
    quiet = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    scheduler = {"cls": Scheduler, "options": quiet}
    return SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL)


def _environment(number: int) -> dict[str, str]:
    """Give a worker its GPU, of those that this process was given."""
    given = [device for device in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if device]
    return {"CUDA_VISIBLE_DEVICES": given[number] if number < len(given) else str(number)}
