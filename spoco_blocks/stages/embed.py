"""Stage `embed`: the network's output for every block, exact across blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.ledger import Records, Tables
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.engine.runner import Blocks, run
from spoco_blocks.grid import Block
from spoco_blocks.settings.jobs import SegmentationJob, digest
from spoco_blocks.stages.output import PredictedOutput, StoredOutput
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.sources import open_source

VERSION = 2


@dataclass(frozen=True)
class EmbedBlock:
    """Predict the inner box and write it."""

    predicted: PredictedOutput
    stored: StoredOutput

    uses_gpu = True

    def __call__(self, block: Block) -> Tables:
        """Predict one block; where nothing was looked for, the stores keep their zeros."""
        output = self.predicted.read(block.inner)
        open_source(self.stored.embeddings).write(block.inner, output.embeddings)
        if self.stored.other is not None and output.other is not None:
            open_source(self.stored.other).write(block.inner, output.other)
        open_source(self.stored.foreground).write(block.inner, output.foreground)
        if self.stored.affinities is not None and output.affinities is not None:
            open_source(self.stored.affinities).write(block.inner, output.affinities)
        return {"skipped": np.array(output.empty)}

    def memory_bytes(self, block: Block) -> int:
        """What prediction needs, and the output compressed."""
        return self.predicted.memory_bytes(block.inner) + self.stored.memory_bytes(block.inner)


def run_embed(job: SegmentationJob, layout: Layout, execution: Execution, shard: int, shards: int) -> Manifest:
    """Predict one shard of the blocks."""
    results = layout.segmentation(job.segmentation)
    planned = Manifest.read(results.manifest("plan"))
    inputs = {"plan": planned.digest}
    watch = Stopwatch("embed", digest("embed", VERSION, job.model_dump(mode="json"), inputs), inputs)
    plan = Plan.read(planned)
    stored = plan.output(results, affinities=True)
    assert isinstance(stored, StoredOutput), "a segmentation that streams has no stage embed"
    blocks = Blocks(plan.embed_grid, results.ledger("embed"), watch.identity, shard, shards)
    summary = run(EmbedBlock(plan.predicted, stored), blocks, execution)
    records = Records(blocks.folder, blocks.record_identity, 0)
    skipped = sum(bool(records.of(index)["skipped"]) for index in blocks.mine)
    found = {"records": blocks.record_identity, "skipped": skipped, **summary.__dict__}
    return watch.finish(results.manifest("embed", shard), {"job": job.model_dump(mode="json"), **found})
