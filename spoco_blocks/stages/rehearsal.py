"""What is small and still needs all that blocks need: what workers would each compile is compiled with it once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.grid import Block, BlockGrid

EXTENT = (8, 12, 36)


def rehearsed_block() -> Block:
    """Give a block with another one behind it along every axis."""
    return BlockGrid(EXTENT, (6, 10, 30), (2, 2, 2)).block(0)


def rehearsed_embeddings(channels: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Give embeddings and foreground of all that `modes` tells apart, in one row of pieces.

    Parameters
    ----------
    channels : int
        Channels of the embeddings.

    Returns
    -------
    embeddings : ndarray of float32, shape (c, z, y, x)
        As the outer box of `rehearsed_block`: 0, beside it a thin piece of 4, then about 0, then far from everything.
    foreground : ndarray of bool, shape (z, y, x)
        The pieces: cores, something that may be a blend, what has no core, and what has no mode.
    """
    shape = rehearsed_block().outer.shape
    noise = np.random.default_rng(0).standard_normal((channels, *shape), dtype=np.float32)
    spread, foreground = np.zeros(shape[2], np.float32), np.zeros(shape, np.bool_)
    for start, size in ((0, 0.0), (14, 0.05), (25, 10.0)):
        spread[start : start + 6], foreground[..., start : start + 6] = size, True
    embeddings = noise * spread
    embeddings[..., 6:9], foreground[..., 6:9] = 4, True
    return embeddings, foreground
