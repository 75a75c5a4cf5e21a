"""The network g: the moving average of f."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def start_average(network: Any) -> Any:
    """Give a network that no gradient changes, equal to another one."""
    average = copy.deepcopy(network).requires_grad_(False)
    for module in average.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 0.0  # its buffers average those of the other and nothing else
    return average


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, momentum: float) -> None:
    """Move parameters and buffers towards those of a network, of which they keep so much of their own."""
    torch._foreach_lerp_(_numbers(average), _numbers(network), 1 - momentum)


def _numbers(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *(b for b in network.buffers() if b.dtype.is_floating_point)]
