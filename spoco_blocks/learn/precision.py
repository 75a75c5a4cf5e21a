"""The numbers that convolutions are computed in."""

from __future__ import annotations

import copy
import math
import time

import torch
from torch import nn

from spoco_blocks.grid import Triple

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# bfloat16 must win by this much, so that noise in the timing does not choose.
CLEARLY_FASTER = 1.25


def autocast(device: str, precision: str) -> torch.autocast:
    """Compute in a precision; float32 changes nothing."""
    return torch.autocast(device, dtype=TYPES[precision], enabled=precision != "float32")


def choose_precision(setting: str, network: nn.Module, shape: tuple[int, int, *Triple], device: str) -> str:
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
    """
    if setting != "auto":
        return setting
    if device != "cpu":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    # Not zeros: they are normalised to denormal numbers, whose arithmetic is slow in one type and not in the other.
    probe, x = copy.deepcopy(network), torch.randn(shape, generator=torch.Generator().manual_seed(0))
    seconds = {"float32": math.inf, "bfloat16": math.inf}
    for _ in range(4):  # in turn, since others may load the machine for a while
        seconds = {name: min(least, _time_step(probe, x, name)) for name, least in seconds.items()}
    return "bfloat16" if seconds["bfloat16"] * CLEARLY_FASTER < seconds["float32"] else "float32"


def _time_step(network: nn.Module, x: torch.Tensor, precision: str) -> float:
    start = time.perf_counter()
    with autocast("cpu", precision):
        loss = network(x).float().pow(2).mean()
    loss.backward()
    return time.perf_counter() - start
