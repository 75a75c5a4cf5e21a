"""The numbers that convolutions are computed in."""

from __future__ import annotations

import copy
import math
import time
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from spoco_blocks.errors import SettingsError
from spoco_blocks.grid import Triple

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Outside of these oneDNN 3.x computes weight gradients in bfloat16 with AMX wrongly, or writes past its buffers and the
# process dies. Seen with planes of 64 x 128, and with 64 x 64 where z is at most 4; never with z of 8 and 64 x 64.
SAFE_DEPTH, SAFE_PLANE = 8, 4096
# Gradients of a parameter in float32 and in bfloat16 point in the same direction but for rounding (cosines of 0.98 and
# more were seen): less means that the library computes something else.
SAME_DIRECTION = 0.95
# bfloat16 must win by this much, so that noise in the timing does not choose.
CLEARLY_FASTER = 1.25


def autocast(device: str, precision: str) -> torch.autocast:
    """Compute in a precision; float32 changes nothing."""
    return torch.autocast(device, dtype=TYPES[precision], enabled=precision != "float32")


def memory_format(channels_last: Literal["auto"] | bool, device: str, precision: str) -> torch.memory_format:
    """Give the layout of the network; auto = channels side by side, but for float32 on a CPU, which is slower so."""
    if channels_last == "auto":
        channels_last = device == "cuda" or precision != "float32"
    return torch.channels_last_3d if channels_last else torch.contiguous_format


def choose_precision(
    setting: str,
    network: nn.Module,
    shape: tuple[int, int, *Triple],
    device: str,
    channels_last: Literal["auto"] | bool = "auto",
) -> str:
    """Give "float32", "bfloat16" or "float16".

    Parameters
    ----------
    setting : str
        One of these, or "auto": by what the GPU can do; on a CPU by the time that a step takes.
    network : nn.Module
        Timed; not changed.
    shape : tuple of int
        (n, c, z, y, x) of a batch.
    device : str
        "cpu" or "cuda".
    channels_last : {"auto"} or bool
        See `memory_format`.

    Raises
    ------
    SettingsError
        When bfloat16 is set where it would damage memory.
    """
    safe = shape[-3] >= SAFE_DEPTH and shape[-2] * shape[-1] <= SAFE_PLANE
    if setting == "bfloat16" and device == "cpu" and not safe:
        raise SettingsError(
            f"precision bfloat16 on a CPU needs patches of at least {SAFE_DEPTH} voxels along z and at most "
            f"{SAFE_PLANE} in a plane, which libraries compute safely; got {shape[-3:]}. Use another "
            "training.patch_voxels, or precision float32 or auto."
        )
    if setting != "auto":
        return setting
    if device != "cpu":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if not safe:
        return "float32"
    # Not zeros: they are normalised to denormal numbers, whose arithmetic is slow in one type and not in the other.
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    best = dict.fromkeys(("float32", "bfloat16"), (math.inf, [torch.zeros(0)]))
    for _ in range(4):  # in turn, since others may load the machine for a while
        best = {
            name: min(least, _step(network, x, name, channels_last), key=lambda step: step[0])
            for name, least in best.items()
        }
    (wide, expected), (half, found) = best["float32"], best["bfloat16"]
    pairs = zip(expected, found, strict=True)
    alike = all(float(functional.cosine_similarity(a, b, dim=0)) > SAME_DIRECTION for a, b in pairs)
    return "bfloat16" if alike and half * CLEARLY_FASTER < wide else "float32"


def _step(
    network: nn.Module, x: torch.Tensor, precision: str, channels_last: Literal["auto"] | bool
) -> tuple[float, list[torch.Tensor]]:
    """Give the seconds that a step takes, and the gradient of each kernel as a vector."""
    layout = memory_format(channels_last, "cpu", precision)
    network = copy.deepcopy(network).to(memory_format=layout)  # type: ignore[call-overload]
    x = x.contiguous(memory_format=layout)
    start = time.perf_counter()
    with autocast("cpu", precision):
        loss = network(x).float().pow(2).mean()
    loss.backward()
    gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None and p.dim() > 1]
    return time.perf_counter() - start, gradients
