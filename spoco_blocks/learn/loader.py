"""Batches of training crops, read ahead by worker processes.

A crop is a function of the seed, the iteration and its place in the batch, and of nothing else: training continues at
any iteration without a sampler's state, and neither the number of workers nor their order changes a batch.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from spoco_blocks.errors import SpocoBlocksError, TrainingError
from spoco_blocks.grid import Triple
from spoco_blocks.learn.crops import Part
from spoco_blocks.learn.views import turn

# Of all volumes and workers of one loader together.
CACHE_BYTES = 2**31
# Imported once, by the process that workers are forked from. Not our own package: zarrs, which decodes chunks, is given
# up for good in forks of a process that knows it (volumes.pipeline).
PRELOADED = ["torch", "torch.utils.data", "numba", "pydantic", "pyarrow.parquet", "zarr"]


@dataclass(frozen=True)
class Batch:
    """Crops of one iteration.

    Attributes
    ----------
    raw : Tensor
        (n, c, z, y, x) float32, normalised.
    labels : Tensor
        (n, z, y, x) int32: > 0 objects, 0 unlabelled, -1 background, -2 ignore.
    """

    raw: Tensor
    labels: Tensor

    def pin_memory(self) -> Batch:
        """Give the same in memory from which a GPU copies while it computes."""
        return Batch(self.raw.pin_memory(), self.labels.pin_memory())


class Loader:
    """Draws and reads the crops of a training run.

    Parameters
    ----------
    open_parts : callable
        Opens the training volumes. Each worker calls it once, so that it must be picklable where there are any: a
        module's function or a `functools.partial` of one.
    patch : tuple of int
        Shape of a crop, in the model's voxels.
    batch : int
        Crops per iteration, of this rank.
    centred : float
        Fraction of crops that are centred on an annotated object.
    seed : int
        Not negative.
    workers : int
        Processes that read ahead; 0 = read here, when asked.
    rank, world : int
        Which of how many training processes this is: each draws crops of its own.
    pin : bool
        Whether batches are brought to pinned memory, where there is a GPU.
    cache_bytes : int
        Memory for tiles at most, of all volumes and workers together.

    Raises
    ------
    TrainingError
        When a number is out of range.

    Notes
    -----
    Workers are forked from a server process that has not started threads (forking this one could hang in those of
    OpenMP or zarr), run on one thread each, and end when this process does, however it ends. Up to two batches per
    worker wait in shared memory.
    """

    def __init__(
        self,
        open_parts: Callable[[], list[Part]],
        patch: Triple,
        *,
        batch: int,
        centred: float,
        seed: int,
        workers: int,
        rank: int = 0,
        world: int = 1,
        pin: bool = False,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        if min(batch, world) < 1 or min(workers, seed) < 0 or not 0 <= rank < world:
            raise TrainingError(
                f"batches need batch >= 1, workers >= 0, seed >= 0 and 0 <= rank < world; got batch {batch}, workers "
                f"{workers}, seed {seed}, rank {rank}, world {world}."
            )
        self._crops = _Crops(open_parts, patch, batch, centred, seed, rank, cache_bytes // max(1, workers))
        self._span, self._pin = _Span(), pin and torch.cuda.is_available()
        self._loader = _start(self._crops, self._span, workers, self._pin) if workers else None

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Give the batches of iterations `start` to `stop` - 1; asking anew ends an earlier answer.

        Raises
        ------
        SpocoBlocksError
            What reading raised, here or in a worker.
        TrainingError
            When a worker was killed.
        """
        if self._loader is None:
            for iteration in range(start, stop):
                batch = self._crops.read(iteration)
                yield batch.pin_memory() if self._pin else batch
            return
        self._span.iterations = range(start, stop)
        try:
            for batch in self._loader:
                if isinstance(batch, SpocoBlocksError):
                    raise batch
                yield batch
        except RuntimeError as error:
            if "exited unexpectedly" not in str(error):
                raise
            raise TrainingError(
                f"a process that reads training data was killed ({error}). Most often memory ran out: use fewer "
                "workers or smaller patches, or ask for more memory."
            ) from error


class _Crops(Dataset[Any]):
    """Batches by iteration. Pickled for workers without what it opened."""

    def __init__(
        self,
        open_parts: Callable[[], list[Part]],
        patch: Triple,
        batch: int,
        centred: float,
        seed: int,
        rank: int,
        cache_bytes: int,
    ) -> None:
        self.open_parts, self.patch, self.batch, self.centred = open_parts, patch, batch, centred
        self.seed, self.rank, self.cache_bytes = seed, rank, cache_bytes
        self.parts: list[Part] | None = None

    def __getitem__(self, iteration: int) -> Batch | SpocoBlocksError:
        # Given, not raised: the DataLoader would bury the message in a traceback.
        try:
            return self.read(iteration)
        except SpocoBlocksError as error:
            return error

    def read(self, iteration: int) -> Batch:
        if self.parts is None:
            parts = self.open_parts()
            for part in parts:
                part.volume.cache_bytes = self.cache_bytes // len(parts)
            self.parts = parts
        first = self.rank * self.batch
        drawn = [self._draw(self.parts, iteration, first + sample) for sample in range(self.batch)]
        raws, labels = zip(*drawn, strict=True)
        return Batch(torch.from_numpy(np.stack(raws)), torch.from_numpy(np.stack(labels)))

    def _draw(self, parts: list[Part], iteration: int, index: int) -> tuple[Any, Any]:
        rng = np.random.default_rng([self.seed, iteration, index])
        part = parts[int(rng.integers(len(parts)))]
        box = part.volume.draw(self.patch, self.centred, rng, part.training)
        return turn(*part.volume.read(box), part.isotropic, rng)


class _Span(Sampler[int]):
    """The iterations that are wanted next; workers outlive a change."""

    iterations = range(0)

    def __iter__(self) -> Iterator[int]:
        return iter(self.iterations)

    def __len__(self) -> int:
        return len(self.iterations)


def _start(crops: _Crops, span: _Span, workers: int, pin: bool) -> DataLoader[Any]:
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(PRELOADED)
    return DataLoader(
        crops,
        batch_size=None,
        sampler=span,
        num_workers=workers,
        multiprocessing_context=context,
        worker_init_fn=partial(_settle, os.getcwd()),
        persistent_workers=True,
        prefetch_factor=2,
        pin_memory=pin,
        # Without its own generator every pass would draw from torch's global one, and change what training draws.
        generator=torch.Generator(),
    )


def _settle(folder: str, worker: int) -> None:
    """Make a fresh worker a good neighbour; `folder` is where relative paths start."""
    os.chdir(folder)
    torch.set_num_threads(1)
    os.environ.setdefault("RAYON_NUM_THREADS", "1")  # zarrs
    # The DataLoader only watches its parent, which is the fork server, and that waits for the workers in turn.
    threading.Thread(target=_follow, args=(multiprocessing.parent_process(),), daemon=True).start()


def _follow(owner: Any) -> None:
    owner.join()
    os._exit(1)
