"""What runs the blocks: one after the other, threads, or local Dask processes. Never changes a result."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Literal

Outcome = tuple[int, Any]
"""An item and its result, or the exception that it ended with."""


@dataclass(frozen=True)
class Execution:
    """How a stage may use this machine.

    Attributes
    ----------
    executor : str
        "serial", "threads" or "dask" (local processes).
    workers : int
        Blocks in flight at once.
    memory_mb : int or None
        Memory that all workers together may use, in MiB; None = not checked.
    """

    executor: Literal["serial", "threads", "dask"] = "serial"
    workers: int = 1
    memory_mb: int | None = None


def execute(execution: Execution, function: Callable[[int], Any], items: Sequence[int]) -> Iterator[Outcome]:
    """Call a function for every item and give the outcomes as they come; an exception is an outcome.

    No more than two items per worker are in flight, so that memory does not depend on their number.
    """
    workers = min(execution.workers, len(items))
    if execution.executor == "serial" or workers <= 1:
        return _serial(function, items)
    if execution.executor == "threads":
        return _threads(function, items, workers)
    return _dask(function, items, workers)


def _serial(function: Callable[[int], Any], items: Sequence[int]) -> Iterator[Outcome]:
    for item in items:
        yield item, _attempt(function, item)


def _attempt(function: Callable[[int], Any], item: int) -> Any:
    try:
        return function(item)
    except Exception as error:
        return error


def _threads(function: Callable[[int], Any], items: Sequence[int], workers: int) -> Iterator[Outcome]:
    queue = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        running = {pool.submit(_attempt, function, item): item for _, item in zip(range(workers), queue, strict=False)}
        while running:
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield running.pop(future), future.result()
                for item in queue:
                    running[pool.submit(_attempt, function, item)] = item
                    break


def _dask(function: Callable[[int], Any], items: Sequence[int], workers: int) -> Iterator[Outcome]:
    import dask
    from distributed import Client, LocalCluster, as_completed

    # Importing it sets its level to INFO: a dozen lines for each cluster that starts and ends.
    logging.getLogger("distributed").setLevel(logging.WARNING)
    # The projection of the runner bounds memory; Dask's own limit would pause workers on what zarr and torch cache.
    options = {"n_workers": workers, "threads_per_worker": 1, "processes": True, "memory_limit": 0}
    with (
        dask.config.set({"distributed.worker.daemon": True}),
        LocalCluster(dashboard_address=None, silence_logs=50, **options) as cluster,
        Client(cluster) as client,
    ):
        queue = iter(items)
        running = {
            client.submit(_attempt, function, item, pure=False): item
            for _, item in zip(range(2 * workers), queue, strict=False)
        }
        stream = as_completed(list(running))
        for future in stream:
            item = running.pop(future)
            outcome = future.result() if future.status == "finished" else future.exception()
            future.release()
            for following in queue:
                submitted = client.submit(_attempt, function, following, pure=False)
                running[submitted] = following
                stream.add(submitted)
                break
            yield item, outcome
