"""Blocks without work; apart, so that a process that runs them imports nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spoco_blocks.engine.ledger import Tables
from spoco_blocks.engine.runner import Blocks
from spoco_blocks.grid import Block, BlockGrid


@dataclass(frozen=True)
class Empty:
    """A block without work."""

    def __call__(self, block: Block) -> Tables:
        """Do nothing."""
        return {}

    def memory_bytes(self, block: Block) -> int:
        """Need next to nothing."""
        return 1


def line_of(count: int, folder: Path) -> Blocks:
    """Give blocks of one voxel in a row, with their ledger in a folder."""
    return Blocks(BlockGrid((1, 1, count), (1, 1, 1)), folder, "bench")
