"""Batches of training crops. A crop is a function of the seed, the iteration and its place in the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spoco_blocks.grid import Triple
from spoco_blocks.learn.crops import Part
from spoco_blocks.learn.views import turn


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


class Loader:
    """Draws and reads the crops of a training run.

    Parameters
    ----------
    open_parts : callable
        Opens the training volumes.
    patch : tuple of int
        Shape of a crop.
    batch : int
        Crops per iteration, of this rank.
    centred : float
        Fraction of crops that are centred on an annotated object.
    seed : int
        Not negative.
    workers : int
        Processes that read ahead; 0 = read here, when asked.
    rank, world : int
        Which of how many training processes this is.
    pin : bool
        Whether batches are brought to pinned memory.
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
    ) -> None:
        self.open_parts, self.patch, self.batch, self.centred, self.seed = open_parts, patch, batch, centred, seed
        self.workers, self.rank, self.world, self.pin = workers, rank, world, pin
        self._parts: list[Part] | None = None

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Give the batches of iterations `start` to `stop` - 1."""
        for iteration in range(start, stop):
            drawn = [self._draw(iteration, self.rank * self.batch + place) for place in range(self.batch)]
            raws, labels = zip(*drawn, strict=True)
            batch = Batch(torch.stack(raws), torch.stack(labels))
            yield Batch(batch.raw.pin_memory(), batch.labels.pin_memory()) if self.pin else batch

    def _draw(self, iteration: int, place: int) -> tuple[Tensor, Tensor]:
        self._parts = self._parts or self.open_parts()
        rng = np.random.default_rng((self.seed, iteration, place))
        part = self._parts[int(rng.integers(len(self._parts)))]
        box = part.volume.draw(self.patch, self.centred, rng, part.training)
        raw, labels = turn(*part.volume.read(box), part.isotropic, rng)
        return torch.from_numpy(raw), torch.from_numpy(labels)
