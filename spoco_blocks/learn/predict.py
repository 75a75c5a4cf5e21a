"""Applying a trained network to an array."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from spoco_blocks.learn.network import EmbeddingNetwork


@torch.inference_mode()
def predict(
    network: EmbeddingNetwork, raw: NDArray[np.float32], *, device: str = "cpu", bfloat16: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Predict embeddings and foreground probability.

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
    embeddings : (e, z, y, x) float32
        Without coordinates.
    foreground : (z, y, x) float32
        Probability.

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
    return kept[:-1].cpu().numpy(), torch.sigmoid(kept[-1]).cpu().numpy()
