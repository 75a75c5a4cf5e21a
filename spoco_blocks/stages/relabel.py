"""Stage `relabel`: the final segmentation at full resolution, in a store of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.ledger import Tables
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.engine.runner import Blocks, run
from spoco_blocks.grid import Block, BlockGrid
from spoco_blocks.kernels.gaps import number_gaps
from spoco_blocks.kernels.lookup import apply_lookup
from spoco_blocks.settings.jobs import SegmentationJob, digest
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.sources import open_source
from spoco_blocks.stages.stitch.mapped import open_table

VERSION = 2
# Fragments, segments and their compressed forms; what it takes to number gaps.
RELABEL_BYTES, GAP_BYTES = 16, 16


@dataclass(frozen=True)
class RelabelBlock:
    """Replace a block's fragments by their segments, in another store.

    Attributes
    ----------
    fragments, segments : Source
        The two stores.
    lookup, offsets : Path
        Segments of all pieces, and how many there are before each block.
    identity : str
        Digest of this run.
    holes, planar : bool
        Whether segments have holes that are filled; whether z counts images.
    """

    fragments: Source
    segments: Source
    lookup: Path
    identity: str
    offsets: Path
    holes: bool = False
    planar: bool = False

    def __call__(self, block: Block) -> Tables:
        """Relabel one block."""
        first, last = open_table(self.offsets, self.identity)[block.index : block.index + 2]
        mine = open_table(self.lookup, self.identity)[first + 1 : last + 1]
        table = np.concatenate([np.zeros(1, mine.dtype), mine])
        pieces = open_source(self.fragments).read(block.inner)
        if self.holes:
            pieces = number_gaps(pieces, planar=self.planar)
        open_source(self.segments).write(block.inner, apply_lookup(pieces, table))
        return {}

    def warm(self) -> None:
        """Relabel one voxel."""
        apply_lookup(np.zeros((1, 1, 1), np.uint32), np.zeros(1, np.load(self.lookup, mmap_mode="r").dtype))
        if self.holes:
            number_gaps(np.zeros((1, 1, 1), np.uint32), planar=self.planar)

    def memory_bytes(self, block: Block) -> int:
        """Two arrays, as they are and compressed."""
        return block.inner.size * (RELABEL_BYTES + GAP_BYTES * self.holes)


def run_relabel(job: SegmentationJob, layout: Layout, execution: Execution, shard: int, shards: int) -> Manifest:
    """Write one shard of the segmentation at full resolution."""
    results = layout.segmentation(job.segmentation)
    plan = Plan.read(Manifest.read(results.manifest("plan")))
    stitched = Manifest.read(results.manifest("stitch"))
    inputs = {"stitch": stitched.digest}
    watch = Stopwatch("relabel", digest("relabel", VERSION, job.model_dump(mode="json"), inputs), inputs)
    task = RelabelBlock(
        fragments=Source(uri=results.fragments),
        segments=Source(uri=results.segments),
        lookup=results.lookup,
        identity=watch.identity,
        offsets=results.offsets,
        holes=stitched.result.get("holes", 0) > 0,
        planar=plan.planar,
    )
    blocks = Blocks(BlockGrid(plan.shape, plan.block_shape), results.ledger("relabel"), watch.identity, shard, shards)
    summary = run(task, blocks, execution)
    result = {"job": job.model_dump(mode="json"), "records": blocks.record_identity, **summary.__dict__}
    return watch.finish(results.manifest("relabel", shard), result)
