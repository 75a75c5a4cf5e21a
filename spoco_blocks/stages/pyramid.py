"""Stage `pyramid`: the coarser levels of the final segmentation, each from the one below."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.ledger import Records, Tables
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.engine.runner import Blocks, run
from spoco_blocks.grid import Block, Box, Triple, triple
from spoco_blocks.kernels.downsample import downsample_mean, downsample_mode
from spoco_blocks.settings.jobs import SegmentationJob, digest
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.sources import open_source

VERSION = 2


@dataclass(frozen=True)
class CoarsenBlock:
    """Fill a block of one pyramid level from the level below.

    Attributes
    ----------
    fine, coarse : Source
        The two levels.
    factor : tuple of int
        Voxels of the finer one per voxel along z, y, x.
    ids : bool
        Whether the most frequent label is taken, or the mean of an image.
    """

    fine: Source
    coarse: Source
    factor: Triple
    ids: bool

    def __call__(self, block: Block) -> Tables:
        """Downsample one block."""
        fine, coarse = open_source(self.fine), open_source(self.coarse)
        start = triple(a * f for a, f in zip(block.inner.start, self.factor, strict=True))
        stop = triple(b * f for b, f in zip(block.inner.stop, self.factor, strict=True))
        voxels = fine.read(Box(start, stop).intersection(Box.of_shape(fine.meta.shape)))
        coarse.write(block.inner, self.coarsened(voxels))
        return {}

    def coarsened(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """Downsample an array."""
        return downsample_mode(voxels, self.factor) if self.ids else downsample_mean(voxels, self.factor)

    def warm(self) -> None:
        """Downsample one window."""
        self.coarsened(np.zeros(self.factor, open_source(self.fine).meta.dtype))

    def memory_bytes(self, block: Block) -> int:
        """Fine and coarse voxels."""
        meta = open_source(self.fine).meta
        return coarsen_bytes(block.inner.size, meta.dtype.itemsize * (meta.channels or 1), self.factor, ids=self.ids)


def coarsen_bytes(voxels: int, each: int, factor: Triple, *, ids: bool) -> int:
    """Project the memory to make a block of so many coarse voxels, each of so many bytes.

    Fine and coarse ones, compressed as well: labels take next to nothing then, noise as much as before.
    """
    return voxels * each * (2 + prod(factor) if ids else 2 * (1 + prod(factor)))


def write_levels(
    plan: Plan, uri: str, ledgers: Path, identity: str, execution: Execution, *, ids: bool
) -> dict[str, Any]:
    """Write the coarser levels of an image whose first one is there; give what the manifest says of it."""
    computed, work_s = 0, 0.0
    for level, factor in enumerate(plan.factors, 1):
        fine, coarse = Source(uri=uri, level=level - 1), Source(uri=uri, level=level)
        blocks = Blocks(plan.level_grid(level), ledgers / f"level-{level}", identity)
        summary = run(CoarsenBlock(fine, coarse, factor, ids), blocks, execution)
        computed, work_s = computed + summary.computed + summary.reused, work_s + summary.work_s
    return {"levels": plan.levels, "computed": computed, "work_s": work_s}


def run_pyramid(job: SegmentationJob, layout: Layout, execution: Execution) -> Manifest:
    """Write the coarser levels, each from the one below."""
    results = layout.segmentation(job.segmentation)
    plan = Plan.read(Manifest.read(results.manifest("plan")))
    relabelled = Manifest.read(results.manifest("relabel", 0))
    Records(results.ledger("relabel"), relabelled.result["records"], len(plan.cluster_grid))  # refuses missing blocks
    inputs = {"relabel": relabelled.digest}
    watch = Stopwatch("pyramid", digest("pyramid", VERSION, job.model_dump(mode="json"), inputs), inputs)
    found = write_levels(plan, results.segments, results.ledger("pyramid"), watch.identity, execution, ids=True)
    return watch.finish(results.manifest("pyramid"), {"job": job.model_dump(mode="json"), **found})
