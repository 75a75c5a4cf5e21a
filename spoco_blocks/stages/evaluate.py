"""Stage `evaluate`: scores against complete labels, from one contingency table that blocks add up to."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.ledger import Records, Tables
from spoco_blocks.engine.manifest import Manifest, Stopwatch, write_atomically
from spoco_blocks.engine.runner import Blocks, run
from spoco_blocks.grid import Block, BlockGrid, Box
from spoco_blocks.kernels.contingency import contingency, merge_tables
from spoco_blocks.kernels.scores import scores
from spoco_blocks.settings.jobs import EvaluateJob, digest
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.sources import label_source, open_like, open_source, region_box
from spoco_blocks.volumes import read_instances

VERSION = 1


@dataclass(frozen=True)
class CompareBlock:
    """Count how truth and segments overlap in one block."""

    truth: Source
    segments: Source
    region: Box

    def __call__(self, block: Block) -> Tables:
        """Compare one block."""
        part = block.inner.intersection(self.region)
        truth = read_instances(open_source(self.truth), part)
        pairs, counts = contingency(truth, open_source(self.segments).read(part))
        return {"pairs": pairs, "counts": counts}

    def memory_bytes(self, block: Block) -> int:
        """Truth and segments."""
        return block.inner.size * 24


def run_evaluate(job: EvaluateJob, layout: Layout, execution: Execution, content: str = "") -> Manifest:
    """Score a segmentation; without truth the scores say so. `content` is a fingerprint of the truth's store."""
    results = layout.segmentation(job.segmentation)
    plan = Plan.read(Manifest.read(results.manifest("plan")))
    inputs = {"relabel": Manifest.read(results.manifest("relabel", 0)).digest}
    watch = Stopwatch("evaluate", digest("evaluate", VERSION, job.model_dump(mode="json"), inputs, content), inputs)
    described = {"job": job.model_dump(mode="json")}
    if job.truth is None:
        write_atomically(results.scores, json.dumps({"note": "no truth is configured for this volume"}) + "\n")
        return watch.finish(results.manifest("evaluate"), described)
    segments = open_source(Source(uri=str(results.segments)))
    source = label_source(job.truth)
    if plan.planar and source.axes is None and plan.shape[0] > 1:
        source = source.model_copy(update={"axes": "nyx"})
    open_like(source, segments, "truth")
    region = region_box(job.truth.region, segments)
    grid = BlockGrid(plan.shape, plan.block_shape)
    chosen = tuple(grid.touching(region))
    blocks = Blocks(grid, results.ledger("evaluate"), watch.identity, only=chosen)
    run(CompareBlock(source, Source(uri=str(results.segments)), region), blocks, execution)
    records = Records(blocks.folder, blocks.record_identity, 0)
    tables = [(record["pairs"], record["counts"]) for record in map(records.of, chosen)]
    found = asdict(scores(*merge_tables(tables), min_voxels=job.truth.min_voxels))
    write_atomically(results.scores, json.dumps(found, indent=1) + "\n")
    return watch.finish(
        results.manifest("evaluate"), {**described, "scores": found, "region": [region.start, region.stop]}
    )
