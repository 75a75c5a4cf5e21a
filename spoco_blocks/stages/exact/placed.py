"""The seeds of any box, by their numbers in the volume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.grid import BlockGrid, Box
from spoco_blocks.kernels.lookup import apply_lookup
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.exact.seeds import Numbered
from spoco_blocks.stages.sources import open_source
from spoco_blocks.stages.stitch.mapped import open_table

TABLES = ("offsets", "ids", "means")


def write_seeds(folder: Path, numbered: Numbered) -> None:
    """Write what `PlacedSeeds` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        np.save(folder / f"{name}.npy", getattr(numbered, name))
    np.save(folder / "cores.npy", np.array(numbered.cores))


@dataclass(frozen=True)
class PlacedSeeds:
    """Seeds as they are stored, and what they are in the volume.

    Attributes
    ----------
    seeds : Source
        The store.
    folder : Path
        The tables.
    grid : BlockGrid
        The blocks that wrote the store.
    identity : str
        Digest of what made the tables.
    """

    seeds: Source
    folder: Path
    grid: BlockGrid
    identity: str

    def table(self, name: str) -> NDArray[Any]:
        """Give one of the tables."""
        return open_table(self.folder / f"{name}.npy", self.identity)

    def read(self, box: Box) -> tuple[NDArray[np.uint32], NDArray[np.int64], int]:
        """Read the seeds of a box.

        Returns
        -------
        labels : ndarray of uint32, shape of the box
            0, or 1 to k.
        ids : ndarray of int64, shape (k + 1,)
            Their numbers in the volume, rising; entry 0 is 0.
        cores : int
            How many of the labels are cores.
        """
        labels = open_source(self.seeds).read(box)
        offsets, ids = self.table("offsets"), self.table("ids")
        blocks = self.grid.touching(box)
        mine = [np.asarray(ids[offsets[b] + 1 : offsets[b + 1] + 1]) for b in blocks]
        known = np.unique(np.concatenate([np.zeros(1, np.int64), *mine]))
        for block, own in zip(blocks, mine, strict=True):
            part = self.grid.block(block).inner.intersection(box).relative_to(box.start).slices
            table = np.concatenate([[0], np.searchsorted(known, own)]).astype(np.uint32)
            labels[part] = apply_lookup(np.ascontiguousarray(labels[part]), table)
        return labels, known, int(np.searchsorted(known, int(self.table("cores")), side="right")) - 1
