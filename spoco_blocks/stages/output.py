"""What the network says of a box: read from the stores of stage `embed`, or predicted when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.errors import CheckpointError
from spoco_blocks.grid import Box, Triple, triple
from spoco_blocks.learn.intensity import Normalisation
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.mask import Mask
from spoco_blocks.stages.sources import open_source

if TYPE_CHECKING:
    from spoco_blocks.learn.mirrored import Mirrored
    from spoco_blocks.learn.predict import Predictor

LARGEST_INT8, LARGEST_FLOAT16 = 127, 65504


@dataclass(frozen=True, eq=False)
class Output:
    """What the network says of a box, as it is stored.

    Attributes
    ----------
    embeddings : ndarray of float16 or int8, shape (c, z, y, x)
        Without coordinates.
    foreground : ndarray of uint8, shape (z, y, x)
        Probability, 255 = 1; at least 1 wherever something was looked for, 0 elsewhere.
    affinities : ndarray of uint8, shape (o, z, y, x), or None
        Probability of one object for each offset, 255 = 1.
    other : ndarray as `embeddings`, or None
        What the other of f and g says; None where nobody asks.
    """

    embeddings: NDArray[Any]
    foreground: NDArray[np.uint8]
    affinities: NDArray[np.uint8] | None
    other: NDArray[Any] | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing was looked for anywhere."""
        return not self.foreground.any()

    def part(self, slices: tuple[slice, ...]) -> Output:
        """Give a part along z, y, x."""
        every = (slice(None), *slices)
        affinities = None if self.affinities is None else self.affinities[every]
        other = None if self.other is None else self.other[every]
        return Output(self.embeddings[every], self.foreground[slices], affinities, other)


class OutputSource(Protocol):
    """Where the output comes from: that of how many embedding channels and affinities."""

    @property
    def channels(self) -> int:
        """Channels of the embeddings."""

    @property
    def offsets(self) -> int:
        """How many affinities are given."""

    @property
    def networks(self) -> int:
        """How many networks' embeddings are given: one, or f's and g's."""

    def read(self, box: Box) -> Output:
        """Give the output for a box."""

    def memory_bytes(self, box: Box) -> int:
        """Project the memory that `read` needs at most, what it gives included."""


@dataclass(frozen=True)
class StoredOutput:
    """What stage `embed` stored.

    Attributes
    ----------
    embeddings, foreground : Source
        The arrays.
    affinities : Source or None
        None = not read.
    channels, offsets : int
        Channels of embeddings and affinities.
    other : Source or None
        Embeddings of the other network.
    """

    embeddings: Source
    foreground: Source
    affinities: Source | None
    channels: int
    offsets: int
    other: Source | None = None

    @property
    def networks(self) -> int:
        """Networks whose embeddings are stored."""
        return 1 if self.other is None else 2

    def read(self, box: Box) -> Output:
        """Read a box; of one without foreground nothing else."""
        foreground = open_source(self.foreground).read(box)
        if not foreground.any():
            return nothing(box, self, open_source(self.embeddings).meta.dtype)
        affinities = None if self.affinities is None else open_source(self.affinities).read(box)
        other = None if self.other is None else open_source(self.other).read(box)
        return Output(open_source(self.embeddings).read(box), foreground, affinities, other)

    def memory_bytes(self, box: Box) -> int:
        """The arrays, and a compressed chunk of each at a time."""
        affinities = 0 if self.affinities is None else self.offsets
        return box.size * (2 * self.channels * self.networks + 1 + affinities)


@dataclass(frozen=True)
class PredictedOutput:
    """The network itself.

    Attributes
    ----------
    raw : Source
        The raw data.
    mask : Mask or None
        Where to look.
    origin, shape : tuple of int
        The part of the raw data that is segmented; boxes count from its start.
    normalisation : Normalisation
        Of the raw data.
    checkpoint, weights, identity : str
        File of the model, network ("f" or "g") and digest of its weights.
    precision, patch_voxels, batch, mirrored : str, tuple of int or None, int, bool
        See `PredictionSettings`.
    scale : tuple of float or None
        What 1 means in each channel of int8 embeddings; None = float16.
    channels, offsets : int
        Channels of embeddings and affinities.
    other : str or None
        Digest of the weights of the other of f and g; None = it is not applied.
    """

    raw: Source
    mask: Mask | None
    origin: Triple
    shape: Triple
    normalisation: Normalisation
    checkpoint: str
    weights: str
    identity: str
    precision: str
    patch_voxels: Triple | None
    batch: int
    scale: tuple[float, ...] | None
    channels: int
    offsets: int
    other: str | None = None
    mirrored: bool = False

    @property
    def networks(self) -> int:
        """Networks that are applied."""
        return 1 if self.other is None else 2

    def predictor(self) -> Predictor | Mirrored:
        """Load the network, once per process."""
        return self._open(self.weights, self.identity)

    def _open(self, weights: str, identity: str) -> Predictor | Mirrored:
        how = self.precision, self.patch_voxels, self.batch, self.mirrored
        return open_predictor(self.checkpoint, weights, identity, *how)

    def seen(self, box: Box) -> Box:
        """Give what the network must see: the box, its halo, from a multiple of the stride on."""
        predictor = self.predictor()
        halo, stride = predictor.halo, predictor.network.plan.stride
        start = triple(max(0, a - h) // s * s for a, h, s in zip(box.start, halo, stride, strict=True))
        stop = triple(min(b + h, e) for b, h, e in zip(box.stop, halo, self.shape, strict=True))
        return Box(start, stop)

    def read(self, box: Box) -> Output:
        """Predict a box; nothing where no voxel is to be segmented, or all that the network would see is one grey."""
        wanted = None if self.mask is None else self.mask.read(box.shifted(self.origin))
        dtype = np.dtype(np.float16 if self.scale is None else np.int8)
        if wanted is not None and not wanted.any():
            return nothing(box, self, dtype)
        seen = self.seen(box)
        raw = open_source(self.raw).read(seen.shifted(self.origin))
        if constant(raw):
            return nothing(box, self, dtype)
        raw, inside = self.normalisation(raw), box.relative_to(seen.start)
        predicted, other = self.predictor()(raw, inside), None
        self._check(predicted.embeddings, box)
        if self.other is not None:
            of_other = self._open("f" if self.weights == "g" else "g", self.other)(raw, inside)
            other = quantised(of_other.embeddings, self.scale)
        # 0 is kept for where nothing was looked for.
        foreground = np.maximum(as_byte(predicted.foreground), 1)
        if wanted is not None:
            foreground[~wanted] = 0
        affinities = as_byte(predicted.affinities) if self.offsets else None
        return Output(quantised(predicted.embeddings, self.scale), foreground, affinities, other)

    def _check(self, embeddings: NDArray[np.float32], box: Box) -> None:
        largest = max(-float(embeddings.min()), float(embeddings.max()))
        if not largest <= LARGEST_FLOAT16:
            raise CheckpointError(
                f"{self.checkpoint} gives embeddings of up to {largest:g} for the voxels {box}, where at most "
                f"{LARGEST_FLOAT16} can be stored; look at the raw data there, and at the learning curves: a training "
                "that diverged has to be repeated with a lower learning_rate."
            )

    def memory_bytes(self, box: Box) -> int:
        """The network's activations and what it gives, as numbers and as they are stored; raw data as they are read."""
        seen = self.seen(box)
        network = self.predictor().memory_bytes(seen.shape, box.relative_to(seen.start))
        return network + 8 * seen.size + box.size * (2 * self.channels * self.networks + 1 + self.offsets)


@lru_cache(maxsize=2)
def open_predictor(
    checkpoint: str,
    weights: str,
    identity: str,
    precision: str,
    patch_voxels: Triple | None,
    batch: int,
    mirrored: bool,
) -> Predictor | Mirrored:
    """Load f or g once per process; `identity` is its digest, so that a retrained model is loaded anew."""
    # PyTorch takes a second and 200 MB, which processes that only read what was stored do not spend.
    from spoco_blocks.learn.checkpoint import load_checkpoint
    from spoco_blocks.learn.device import choose_device
    from spoco_blocks.learn.mirrored import Mirrored
    from spoco_blocks.learn.predict import Predictor

    # One thread, whatever the executor: results then do not depend on how many share the machine.
    device = choose_device(threads=1)
    network = load_checkpoint(Path(checkpoint)).network(ema=weights == "g")
    predictor = Predictor(network, device, precision=precision, patch_voxels=patch_voxels, batch=batch)
    return Mirrored(predictor) if mirrored else predictor


def nothing(box: Box, source: OutputSource, dtype: np.dtype[Any]) -> Output:
    """Give the output of a box in which nothing was looked for."""
    embeddings = np.zeros((source.channels, *box.shape), dtype)
    return Output(
        embeddings,
        np.zeros(box.shape, np.uint8),
        np.zeros((source.offsets, *box.shape), np.uint8) if source.offsets else None,
        embeddings.copy() if source.networks == 2 else None,
    )


def constant(raw: NDArray[Any]) -> bool:
    """Tell whether each channel of (z, y, x) or (c, z, y, x) raw data is one grey."""
    channels = raw if raw.ndim == 4 else raw[None]
    return all(bool((channel == channel.flat[0]).all()) for channel in channels)


def as_byte(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Store a probability in a byte, 255 = 1."""
    return np.rint(probability * 255).astype(np.uint8)


def quantised(embeddings: NDArray[np.float32], scale: tuple[float, ...] | None) -> NDArray[Any]:
    """Round (c, z, y, x) embeddings to what is stored: float16, or int8 in steps of each channel's `scale`."""
    if scale is None:
        return embeddings.astype(np.float16)
    stored = np.empty(embeddings.shape, np.int8)
    for channel, step, to in zip(embeddings, scale, stored, strict=True):
        to[...] = np.clip(np.rint(channel / step), -LARGEST_INT8, LARGEST_INT8)
    return stored


def int8_scale(largest: NDArray[np.floating[Any]]) -> tuple[float, ...]:
    """Choose the steps of int8 embeddings.

    Parameters
    ----------
    largest : ndarray of float, shape (c,)
        Largest absolute value of each channel that was seen in samples of the volume.

    Returns
    -------
    tuple of float
        Steps that leave room for values half as large again; what is larger still is clipped.
    """
    return tuple(float(value) for value in np.maximum(1.5 * largest / LARGEST_INT8, 1e-6))
