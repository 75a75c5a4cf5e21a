"""Several processes that train one network, started by torchrun; one process is the same with nothing to exchange."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Group:
    """The processes of a run.

    Attributes
    ----------
    rank : int
        Which one this is; 0 writes.
    world : int
        How many there are.

    Notes
    -----
    Gradients are averaged in one exchange after the backward pass, without the wrapper DistributedDataParallel: a
    patch without objects or background leaves parameters without a gradient, which the wrapper waits for, and what it
    gains by exchanging early is little for a network of a few million weights.
    """

    rank: int = 0
    world: int = 1

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace float32 tensors by their means over all processes."""
        if self.world == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= self.world
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def agree(self, value: Any) -> Any:
        """Give the first process's value to all."""
        if self.world == 1:
            return value
        shared = [value]
        distributed.broadcast_object_list(shared)
        return shared[0]

    def wait(self) -> None:
        """Wait for the others: torchrun ends all processes when one of them ends with an error."""
        if self.world > 1:
            distributed.barrier()

    def synchronised(self, network: nn.Module, device: str) -> nn.Module:
        """Let BatchNorm see the batches of all GPUs; on CPUs, where PyTorch cannot, each process sees its own."""
        if self.world == 1 or device == "cpu":
            return network
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return converted


@contextmanager
def process_group() -> Iterator[Group]:
    """Join the processes that torchrun started; without it there is one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Group()
        return
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if gpu else "gloo")
    try:
        yield Group(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
