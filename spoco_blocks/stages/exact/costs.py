"""What the passes of exact stitching cost."""

from __future__ import annotations

from pathlib import Path

from spoco_blocks.clustering import Modes
from spoco_blocks.engine.layout import SegmentationResults
from spoco_blocks.grid import triple
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.exact.cluster import ClusterExactly
from spoco_blocks.stages.exact.pieces import GrowSeeds
from spoco_blocks.stages.exact.placed import PlacedSeeds
from spoco_blocks.stages.exact.seeds import FindSeeds, exact_grid
from spoco_blocks.stages.plan import Plan

# Seconds for a voxel of both passes of `calibrate` together and of that of `cluster`, as parts of what clustering once
# takes: measured with 16 channels where 70 % of the voxels are foreground.
SEEDING, CLUSTERING = 2.5, 2.3


def pass_memory(plan: Plan, results: SegmentationResults, source: Embedded, method: Modes) -> tuple[int, int]:
    """Give the bytes of memory that a block needs at most in the passes of `calibrate`, and in `cluster`."""
    grid = exact_grid(plan, method)
    block = grid.block(grid.index(triple(n // 2 for n in grid.counts)))
    seeds, fragments = Source(uri=results.seeds), Source(uri=results.fragments)
    placed = PlacedSeeds(seeds, results.pieces, grid, "")
    finding = FindSeeds(source, method, (0.0, 0.0), Path(), seeds, plan.shape, "")
    clustering = ClusterExactly(
        source, method, placed, fragments, plan.predicted, plan.shape, gaps=False, planar=plan.planar
    )
    growing = GrowSeeds(source, method, placed)
    return max(finding.memory_bytes(block), growing.memory_bytes(block)), clustering.memory_bytes(block)
