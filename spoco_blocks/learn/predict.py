"""Applying a trained network to an array."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from spoco_blocks.learn.network import EmbeddingNetwork


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


@torch.inference_mode()
def predict(
    network: EmbeddingNetwork, raw: NDArray[np.float32], *, device: str = "cpu", bfloat16: bool = False
) -> Prediction:
    """Predict embeddings, foreground and affinities.

    Parameters
    ----------
    network : EmbeddingNetwork
        In evaluation mode, on `device`.
    raw : (c, z, y, x) float32
        Normalised raw data whose origin is a multiple of the network's stride.
    device : str
        Where the network is.
    bfloat16 : bool
        Compute in bfloat16.

    Returns
    -------
    Prediction
        Of the shape of `raw`.

    Notes
    -----
    The far ends are padded to the stride by repeating the last voxel. Since the padding depends only on where the
    array ends, a block that ends where the volume ends is padded as the whole volume would be: with a halo of
    `plan.halo`, blockwise and whole prediction agree.
    """
    extent = raw.shape[1:]
    padding = [(0, -size % step) for size, step in zip(extent, network.plan.stride, strict=True)]
    padded = np.pad(raw, [(0, 0), *padding], mode="edge")
    with torch.autocast(device, dtype=torch.bfloat16, enabled=bfloat16):
        output = network(torch.from_numpy(padded)[None].to(device))[0].float()
    kept = output[(slice(None), *(slice(0, size) for size in extent))]
    channels = network.plan.embedding_channels
    probabilities = torch.sigmoid(kept[channels:]).cpu().numpy()
    return Prediction(kept[:channels].cpu().numpy(), probabilities[0], probabilities[1:])


class Predictor:
    """TEMPORARY."""

    def __init__(self, network, device, *, precision="float32", patch_voxels=None, batch=1):
        self.network, self.device, self.precision = network, device, precision

    def __call__(self, raw):
        return predict(self.network, raw, device=self.device, bfloat16=self.precision == "bfloat16")

    def memory_bytes(self, shape):
        return (
            shape[0] * shape[1] * shape[2] * 4 * (2 + 9 * self.network.plan.widths[0] + 2 * self.network.plan.outputs)
            + 300 * 2**20
        )
