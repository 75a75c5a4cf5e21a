"""Applying a trained network to arrays: patch by patch, in batches, in what memory there is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spoco_blocks.errors import GridError, ResourceError, SettingsError, VolumeError
from spoco_blocks.grid import Box, Triple, triple
from spoco_blocks.learn.folded import FoldedNetwork
from spoco_blocks.learn.network import EmbeddingNetwork
from spoco_blocks.learn.patches import UNLIMITED, Patch, Patching
from spoco_blocks.learn.precision import TYPES

log = logging.getLogger(__name__)

# What PyTorch's CPU allocator and oneDNN say; PyTorch has an exception of its own for GPUs only. oneDNN creates a
# primitive for any shape unless it gets no memory for the code.
OUT_OF_MEMORY = ("DefaultCPUAllocator", "bad_alloc", "out of memory", "could not create a primitive")


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network says of an array.

    Attributes
    ----------
    embeddings : (e, z, y, x) float32
        Without coordinates.
    foreground : (z, y, x) float32
        Probability.
    affinities : (o, z, y, x) float32
        Probability of belonging together with the voxel at each of the plan's offsets.
    """

    embeddings: NDArray[np.float32]
    foreground: NDArray[np.float32]
    affinities: NDArray[np.float32]


class _Arriving(NamedTuple):
    """Parts to keep that are on their way to the host."""

    boxes: list[Box]
    parts: list[Tensor]
    event: torch.cuda.Event | None


class Predictor:
    """A network that predicts arrays; made once per process, and called by as many threads as there are.

    Parameters
    ----------
    network : EmbeddingNetwork
        In evaluation mode; copied, so that it may be dropped or trained on.
    device : str
        Where to compute: "cpu" or "cuda".
    precision : str
        "float32" or "bfloat16".
    patch_voxels : tuple of int or None
        Patches (z, y, x), without the halo that is added on each side; rounded up to the network's stride. None =
        an array is one patch.
    batch : int
        Patches that are computed at once.

    Raises
    ------
    SettingsError
        When precision, patches or batch are none.

    Notes
    -----
    Patches that do not fit in memory are halved, first their number and then their shape; what fitted is kept for
    the arrays that follow. One thread computes while others read and write.
    """

    def __init__(
        self,
        network: EmbeddingNetwork,
        *,
        device: str = "cpu",
        precision: str = "float32",
        patch_voxels: Triple | None = None,
        batch: int = 1,
    ) -> None:
        if precision not in TYPES:
            raise SettingsError(f"precision must be one of {', '.join(TYPES)} to predict; got {precision!r}.")
        if batch < 1 or min(patch_voxels or (1,)) < 1:
            raise SettingsError(
                f"prediction needs patches and batches of at least 1; got patches of {patch_voxels}, {batch} at once."
            )
        self.plan = network.plan
        self.device = device
        self._network = FoldedNetwork(network, device, precision)
        self._limit = patch_voxels or (UNLIMITED, UNLIMITED, UNLIMITED)
        self._batch = batch
        self._computing = threading.Lock()

    def __call__(self, raw: NDArray[np.float32], keep: Box | None = None) -> Prediction:
        """Predict an array, or a box of it.

        Parameters
        ----------
        raw : (c, z, y, x) float32
            Normalised raw data whose origin is a multiple of the network's stride.
        keep : Box, optional
            What is asked for, in the frame of `raw`: the rest of it is seen as far as the halo reaches. None = all.

        Returns
        -------
        Prediction
            Of the shape of `keep`.

        Raises
        ------
        VolumeError
            When `raw` has other channels than the network.
        GridError
            When `keep` is empty or reaches out of `raw`.
        ResourceError
            When even the smallest patch does not fit in memory.

        Notes
        -----
        The far ends are padded to the stride by repeating the last voxel. Since the padding depends only on where the
        array ends, a block that ends where the volume ends is padded as the whole volume would be: with a halo of
        `plan.halo`, blockwise and whole prediction agree, and so do those of patches.
        """
        if raw.ndim != 4 or raw.shape[0] != self.plan.in_channels:
            raise VolumeError(
                f"the network takes ({self.plan.in_channels}, z, y, x) voxels; got {raw.shape}. Give it raw data with "
                "the channels that it was trained on."
            )
        whole = Box.of_shape(triple(raw.shape[1:]))
        keep = keep or whole
        if not keep.size or not whole.contains(keep):
            raise GridError(f"asked for {keep} of an array {whole}; it must lie inside and hold a voxel.")
        try:
            embeddings = np.empty((self.plan.embedding_channels, *keep.shape), np.float32)
            probabilities = np.empty((1 + len(self.plan.offsets), *keep.shape), np.float32)
        except MemoryError as error:
            raise ResourceError(_too_large(f"the result of {keep.shape} voxels")) from error
        with self._computing, torch.inference_mode():
            self._fit(raw, keep, embeddings, probabilities)
        with torch.inference_mode():
            torch.from_numpy(probabilities).sigmoid_()
        return Prediction(embeddings, probabilities[0], probabilities[1:])

    def _fit(
        self, raw: NDArray[np.float32], keep: Box, embeddings: NDArray[np.float32], logits: NDArray[np.float32]
    ) -> None:
        """Predict with patches as large as they were told or found to be, or smaller where these do not fit."""
        shrunk = False
        while True:
            patching = self._patching(raw, keep)
            failure = self._attempt(raw, patching, embeddings, logits)
            if failure is None:
                break
            # Here and not where it failed: while the error lives, so do the tensors of its frames.
            if self.device == "cuda":
                torch.cuda.empty_cache()
            self._shrink(patching, failure)
            shrunk = True
        if shrunk:
            shape = self._patching(raw, keep).patch_shape
            log.warning("memory is short: from now on %d patches of %s voxels at once", self._batch, shape)

    def _patching(self, raw: NDArray[np.float32], keep: Box) -> Patching:
        return Patching(triple(raw.shape[1:]), keep, self._limit, self.plan.halo, self.plan.stride)

    def _shrink(self, patching: Patching, failure: str) -> None:
        at_once = min(self._batch, len(patching))
        if at_once > 1:
            self._batch = at_once // 2
            return
        halved = patching.halved()
        if halved is None:
            smallest = f"a patch of {patching.patch_shape} voxels, the smallest that there is,"
            raise ResourceError(f"{_too_large(smallest)} The library said: {failure}")
        self._limit = halved

    def _attempt(
        self,
        raw: NDArray[np.float32],
        patching: Patching,
        embeddings: NDArray[np.float32],
        logits: NDArray[np.float32],
    ) -> str | None:
        """Give what was said when memory did not suffice; None = it did."""
        patches, origin = patching.patches, patching.keep.start
        arriving = None
        try:
            for first in range(0, len(patches), self._batch):
                following = self._launch(raw, patches[first : first + self._batch], origin)
                # A GPU computes these while those before are copied.
                if arriving is not None:
                    _receive(arriving, embeddings, logits)
                arriving = following
            if arriving is not None:
                _receive(arriving, embeddings, logits)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            return str(error).splitlines()[0] if str(error) else type(error).__name__
        return None

    def _launch(self, raw: NDArray[np.float32], patches: Sequence[Patch], origin: Triple) -> _Arriving:
        """Start the network on a batch; give what is kept of it, on the host once the event has come."""
        on_gpu = self.device == "cuda"
        x = _stage(raw, patches, self._network.dtype, pinned=on_gpu).to(self.device, non_blocking=True)
        output = self._network(x)
        parts = []
        for number, patch in enumerate(patches):
            part = output[(number, slice(None), *patch.kept.relative_to(patch.outer.start).slices)]
            if on_gpu:
                host = torch.empty(part.shape, dtype=part.dtype, pin_memory=True)
                part = host.copy_(part.contiguous(), non_blocking=True)
            parts.append(part)
        event = None
        if on_gpu:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        return _Arriving([patch.kept.relative_to(origin) for patch in patches], parts, event)


def predict(
    network: EmbeddingNetwork, raw: NDArray[np.float32], *, device: str = "cpu", bfloat16: bool = False
) -> Prediction:
    """Predict one array in one piece; see `Predictor`, which many arrays share.

    Parameters
    ----------
    network : EmbeddingNetwork
        In evaluation mode.
    raw : (c, z, y, x) float32
        Normalised raw data whose origin is a multiple of the network's stride.
    device : str
        Where to compute.
    bfloat16 : bool
        Compute in bfloat16.

    Returns
    -------
    Prediction
        Of the shape of `raw`.
    """
    return Predictor(network, device=device, precision="bfloat16" if bfloat16 else "float32")(raw)


def _stage(raw: NDArray[np.float32], patches: Sequence[Patch], dtype: torch.dtype, *, pinned: bool) -> Tensor:
    """Copy patches into a batch with channels side by side, repeating the array's last voxels beyond its ends."""
    shape = patches[0].outer.shape
    # As (n, z, y, x, c) in memory, which the network sees as (n, c, z, y, x).
    batch = torch.empty((len(patches), *shape, len(raw)), dtype=dtype, pin_memory=pinned).permute(0, 4, 1, 2, 3)
    for target, patch in zip(batch, patches, strict=True):
        part = raw[(slice(None), *patch.outer.slices)]
        missing = [size - has for size, has in zip(shape, part.shape[1:], strict=True)]
        if any(missing):
            part = np.pad(part, [(0, 0), *((0, m) for m in missing)], mode="edge")
        target.copy_(torch.from_numpy(np.require(part, requirements="W")))
    return batch


def _receive(arriving: _Arriving, embeddings: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
    """Copy the parts of a batch to where they belong."""
    if arriving.event is not None:
        arriving.event.synchronize()
    for box, part in zip(arriving.boxes, arriving.parts, strict=True):
        place = (slice(None), *box.slices)
        torch.from_numpy(embeddings)[place].copy_(part[: len(embeddings)])
        torch.from_numpy(logits)[place].copy_(part[len(embeddings) :])


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(phrase in str(error) for phrase in OUT_OF_MEMORY)


def _too_large(what: str) -> str:
    return (
        f"{what} does not fit in memory. Use smaller blocks (segmentations.NAME.blocks.shape_voxels), fewer workers, a "
        "smaller network (models.NAME.network), or a machine with more memory."
    )
