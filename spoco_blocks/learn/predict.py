"""Applying a trained network to arrays: patch by patch, in batches, in what memory there is."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from spoco_blocks.errors import GridError, ResourceError, SettingsError, VolumeError
from spoco_blocks.grid import Box, Triple, triple
from spoco_blocks.learn.folded import FoldedNetwork
from spoco_blocks.learn.network import EmbeddingNetwork
from spoco_blocks.learn.patches import UNLIMITED, Patching
from spoco_blocks.learn.predict_memory import memory_bytes, model_bytes
from spoco_blocks.learn.transfer import Arriving, receive, send, stage

log = logging.getLogger(__name__)

PRECISIONS = ("float32", "bfloat16")

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
        device: str = "cpu",
        *,
        precision: str = "float32",
        patch_voxels: Triple | None = None,
        batch: int = 1,
    ) -> None:
        if precision not in PRECISIONS:
            raise SettingsError(f"precision must be {' or '.join(PRECISIONS)} to predict; got {precision!r}.")
        if batch < 1 or min(patch_voxels or (1,)) < 1:
            raise SettingsError(
                f"prediction needs patches and batches of at least 1; got patches of {patch_voxels}, {batch} at once."
            )
        self.device = device
        self.precision = precision
        self.network = FoldedNetwork(network, device, precision)
        self._limit = patch_voxels or (UNLIMITED, UNLIMITED, UNLIMITED)
        self._batch = batch
        self._computing = threading.Lock()

    @property
    def halo(self) -> Triple:
        """Margin beyond which no input voxel can reach an output."""
        return self.network.plan.halo

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
        plan = self.network.plan
        if raw.ndim != 4 or raw.shape[0] != plan.in_channels:
            raise VolumeError(
                f"the network takes ({plan.in_channels}, z, y, x) voxels; got {raw.shape}. Give it raw data with "
                "the channels that it was trained on."
            )
        whole = Box.of_shape(triple(raw.shape[1:]))
        keep = keep or whole
        if not keep.size or not whole.contains(keep):
            raise GridError(f"asked for {keep} of an array {whole}; it must lie inside and hold a voxel.")
        try:
            embeddings = np.empty((plan.embedding_channels, *keep.shape), np.float32)
            probabilities = np.empty((1 + len(plan.offsets), *keep.shape), np.float32)
        except MemoryError as error:
            raise ResourceError(_too_large(f"the result of {keep.shape} voxels")) from error
        with self._computing, torch.inference_mode():
            self._fit(raw, keep, embeddings, probabilities)
        with torch.inference_mode():
            torch.from_numpy(probabilities).sigmoid_()
        return Prediction(embeddings, probabilities[0], probabilities[1:])

    def memory_bytes(self, shape: Triple, keep: Box | None = None) -> int:
        """Project the most memory that the model and predicting an array of this shape take on a CPU.

        Parameters
        ----------
        shape : tuple of int
            Of the array, (z, y, x), the halo included.
        keep : Box, optional
            What is asked for of it.
        """
        plan, limit = self.network.plan, self._limit
        each = memory_bytes(plan, shape, keep, precision=self.precision, patch_voxels=limit, batch=self._batch)
        return model_bytes(plan) + each

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
        return Patching(triple(raw.shape[1:]), keep, self._limit, self.network.plan.halo, self.network.plan.stride)

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
        arriving: Arriving | None = None
        try:
            for first in range(0, len(patches), self._batch):
                batch = patches[first : first + self._batch]
                x = stage(raw, batch, self.network.dtype, self.device)
                before, arriving = arriving, send(self.network(x), batch, origin)
                # A GPU computes these while those before are copied; a CPU would only hold both.
                if before is not None:
                    receive(before, embeddings, logits)
                if arriving.event is None:
                    receive(arriving, embeddings, logits)
                    arriving = None
            if arriving is not None:
                receive(arriving, embeddings, logits)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            return str(error).splitlines()[0] if str(error) else type(error).__name__
        return None


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


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(phrase in str(error) for phrase in OUT_OF_MEMORY)


def _too_large(what: str) -> str:
    return (
        f"{what} does not fit in memory. Use smaller blocks (segmentations.NAME.blocks.shape_voxels), fewer workers, a "
        "smaller network (models.NAME.network), or a machine with more memory."
    )
