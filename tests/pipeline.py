"""A small trained model, and all stages after training in this process."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout, SegmentationResults
from spoco_blocks.settings import Settings, jobs, parse_settings
from spoco_blocks.stages.calibrate import run_calibrate
from spoco_blocks.stages.cluster import run_cluster
from spoco_blocks.stages.embed import run_embed
from spoco_blocks.stages.evaluate import run_evaluate
from spoco_blocks.stages.plan.run import run_plan
from spoco_blocks.stages.relabel import run_pyramid, run_relabel
from spoco_blocks.stages.stitch import run_stitch

SERIAL = Execution()


def segment(
    settings: Settings, name: str, layout: Layout, execution: Execution = SERIAL, shards: int = 1
) -> SegmentationResults:
    """Run the stages from plan to relabel."""
    stages = ("plan", "embed", "cluster", "stitch", "relabel")
    job = {stage: jobs.segmentation_job(settings, stage, name) for stage in stages}
    run_plan(job["plan"], layout)
    for shard in range(shards if settings.segmentations[name].embeddings == "keep" else 0):
        run_embed(job["embed"], layout, execution, shard, shards)
    run_calibrate(job["cluster"], layout, execution)
    for shard in range(shards):
        run_cluster(job["cluster"], layout, execution, shard, shards)
    run_stitch(job["stitch"], layout)
    for shard in range(shards):
        run_relabel(job["relabel"], layout, execution, shard, shards)
    return layout.segmentation(name)


def segment_and_score(
    settings: Settings, name: str, layout: Layout, execution: Execution = SERIAL, shards: int = 1
) -> SegmentationResults:
    """Run all stages after training."""
    results = segment(settings, name, layout, execution, shards)
    run_pyramid(jobs.segmentation_job(settings, "pyramid", name), layout, execution)
    run_evaluate(jobs.segmentation_job(settings, "evaluate", name), layout, execution)
    return results


@dataclass(frozen=True)
class Trained:
    """A results folder with an indexed volume and a trained model."""

    layout: Layout
    tree: dict

    def segment(self, name: str, execution: Execution = SERIAL, shards: int = 1, **section) -> SegmentationResults:
        """Run all stages after training under a name of their own."""
        tree = copy.deepcopy(self.tree)
        tree["segmentations"] = {name: tree["segmentations"]["balls"] | section}
        return segment_and_score(parse_settings(tree), name, self.layout, execution, shards)
