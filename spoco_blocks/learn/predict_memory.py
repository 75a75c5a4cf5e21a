"""The memory that predicting takes on a CPU: projected from the architecture, checked against real processes."""

from __future__ import annotations

from math import prod

import torch

from spoco_blocks.grid import Box, Triple
from spoco_blocks.learn.network import EmbeddingNetwork
from spoco_blocks.learn.network_plan import NetworkPlan
from spoco_blocks.learn.patches import UNLIMITED, Patching
from spoco_blocks.learn.precision import TYPES

# glibc keeps what is freed in pieces of up to 32 MiB: with this much, no projection was below what was measured.
RETAINED_BYTES = 56 * 2**20
# Code that oneDNN generates, and what else does not depend on the array.
FIXED_BYTES = 10 * 2**20


def memory_bytes(
    plan: NetworkPlan,
    shape: Triple,
    keep: Box | None = None,
    *,
    precision: str = "float32",
    patch_voxels: Triple | None = None,
    batch: int = 1,
) -> int:
    """Project the most memory that predicting an array takes on a CPU, beyond the process and `model_bytes`.

    Parameters
    ----------
    plan : NetworkPlan
        The architecture.
    shape : tuple of int
        Of the array, the halo included.
    keep : Box, optional
        What is asked for of it.
    precision, patch_voxels, batch
        Those of the `Predictor`.

    Returns
    -------
    int
        Bytes, raw data and result included: 1.05 to 2.1 times the peaks that were measured, which differ by up
        to 1.4 times from run to run.

    Notes
    -----
    Threads that share a `Predictor` take `computing_bytes` once, and `array_bytes` each.
    """
    keep = keep or Box.of_shape(shape)
    computing = computing_bytes(plan, shape, keep, precision=precision, patch_voxels=patch_voxels, batch=batch)
    return computing + array_bytes(plan, shape, keep)


def array_bytes(plan: NetworkPlan, shape: Triple, keep: Box) -> int:
    """Give the size of the raw data and of a prediction."""
    return 4 * (plan.in_channels * prod(shape) + plan.outputs * keep.size)


def computing_bytes(
    plan: NetworkPlan, shape: Triple, keep: Box, *, precision: str, patch_voxels: Triple | None, batch: int
) -> int:
    """Project what the network takes while one thread computes."""
    patching = Patching(shape, keep, patch_voxels or (UNLIMITED,) * 3, plan.halo, plan.stride)
    voxels = prod(patching.patch_shape) * min(batch, len(patching))
    each = TYPES[precision].itemsize
    width, coarser = plan.widths[0], plan.widths[1] / prod(plan.pools[0]) if plan.pools else 0
    # Two tensors while a convolution runs, with that of the level below while a skip is joined; then the output.
    numbers = plan.in_channels + max(2 * width + coarser, width + plan.outputs)
    activations = int(voxels * numbers * each)
    largest = max(prod(kernel) * n * n for kernel, n in zip(plan.kernels, plan.widths, strict=True))
    # oneDNN orders the weights of a layer anew each time.
    return activations + min(activations, RETAINED_BYTES) + largest * each + FIXED_BYTES


def model_bytes(plan: NetworkPlan) -> int:
    """Give what loading a checkpoint and making a `Predictor` of it takes: f and g, the network and its copy."""
    with torch.device("meta"):
        network = EmbeddingNetwork(plan)
    numbers: int = sum(tensor.numel() for tensor in network.state_dict().values())
    return 4 * 4 * numbers + FIXED_BYTES
