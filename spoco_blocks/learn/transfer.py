"""Patches on their way to the network, and what is kept of them on its way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spoco_blocks.grid import Box, Triple
from spoco_blocks.learn.patches import Patch


class Arriving(NamedTuple):
    """What is kept of a batch, on its way to the host.

    Attributes
    ----------
    boxes : list of Box
        Where each part belongs.
    parts : list of (outputs, z, y, x) tensors
        On the host, complete once the event has come.
    event : torch.cuda.Event or None
        None where they never left the host.
    """

    boxes: list[Box]
    parts: list[Tensor]
    event: torch.cuda.Event | None


def stage(raw: NDArray[np.float32], patches: Sequence[Patch], dtype: torch.dtype, device: str) -> Tensor:
    """Copy patches into a batch with channels side by side, repeating the array's last voxels beyond its ends."""
    shape = patches[0].outer.shape
    # As (n, z, y, x, c) in memory, which the network sees as (n, c, z, y, x).
    batch = torch.empty((len(patches), *shape, len(raw)), dtype=dtype, pin_memory=device == "cuda").permute(
        0, 4, 1, 2, 3
    )
    for target, patch in zip(batch, patches, strict=True):
        part = raw[(slice(None), *patch.outer.slices)]
        missing = [size - has for size, has in zip(shape, part.shape[1:], strict=True)]
        if any(missing):
            part = np.pad(part, [(0, 0), *((0, m) for m in missing)], mode="edge")
        target.copy_(torch.from_numpy(np.require(part, requirements="W")))
    return batch.to(device, non_blocking=True)


def send(output: Tensor, patches: Sequence[Patch], origin: Triple) -> Arriving:
    """Start copying what is kept of a batch to the host; boxes count from `origin`."""
    parts, event = [], None
    for number, patch in enumerate(patches):
        part = output[(number, slice(None), *patch.kept.relative_to(patch.outer.start).slices)]
        if output.is_cuda:
            host = torch.empty(part.shape, dtype=part.dtype, pin_memory=True)
            part = host.copy_(part.contiguous(), non_blocking=True)
        parts.append(part)
    if output.is_cuda:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
    return Arriving([patch.kept.relative_to(origin) for patch in patches], parts, event)


def receive(arriving: Arriving, embeddings: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
    """Copy the parts of a batch to where they belong."""
    if arriving.event is not None:
        arriving.event.synchronize()
    for box, part in zip(arriving.boxes, arriving.parts, strict=True):
        place = (slice(None), *box.slices)
        torch.from_numpy(embeddings)[place].copy_(part[: len(embeddings)])
        torch.from_numpy(logits)[place].copy_(part[len(embeddings) :])
