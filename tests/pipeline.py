"""A small trained model, and all stages after training in this process."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from phantoms import balls, store
from scipy import ndimage

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout, SegmentationResults
from spoco_blocks.grid import Box
from spoco_blocks.settings import Settings, jobs, parse_settings
from spoco_blocks.settings.base import Section
from spoco_blocks.stages.calibrate import run_calibrate
from spoco_blocks.stages.cluster import run_cluster
from spoco_blocks.stages.embed import run_embed
from spoco_blocks.stages.evaluate import run_evaluate
from spoco_blocks.stages.labels import run_labels
from spoco_blocks.stages.plan.run import run_plan
from spoco_blocks.stages.pyramid import run_pyramid
from spoco_blocks.stages.raw_pyramid import run_raw_pyramid
from spoco_blocks.stages.relabel import run_relabel
from spoco_blocks.stages.stitch import run_stitch
from spoco_blocks.volumes import open_volume

SERIAL = Execution()


def run_stage(
    stage: str, job: Section, layout: Layout, execution: Execution = SERIAL, shard: int = 0, shards: int = 1
) -> None:
    """Run one stage of a segmentation, or one shard of it."""
    blockwise = {"embed": run_embed, "cluster": run_cluster, "relabel": run_relabel}
    whole = {
        "calibrate": run_calibrate, "pyramid": run_pyramid, "raw_pyramid": run_raw_pyramid, "evaluate": run_evaluate,
    }  # fmt: skip
    if stage in blockwise:
        blockwise[stage](job, layout, execution, shard, shards)
    elif stage in ("plan", "stitch"):
        {"plan": run_plan, "stitch": run_stitch}[stage](job, layout)
    else:
        whole[stage](job, layout, execution)


Edit = Callable[[SegmentationResults], None]


def segment(
    settings: Settings,
    name: str,
    layout: Layout,
    execution: Execution = SERIAL,
    shards: int = 1,
    edit: Edit | None = None,
) -> SegmentationResults:
    """Run the stages from plan to relabel; `edit` may change what the network said."""
    for stage in ("plan", "embed", "calibrate", "cluster", "stitch", "relabel"):
        if stage == "embed" and settings.segmentations[name].embeddings == "stream":
            continue
        for shard in range(shards if stage in ("embed", "cluster", "relabel") else 1):
            run_stage(stage, jobs.segmentation_job(settings, stage, name), layout, execution, shard, shards)
        if stage == "embed" and edit is not None:
            edit(layout.segmentation(name))
    return layout.segmentation(name)


def punch_holes(results: SegmentationResults) -> None:
    """Make a part of the voxels well inside of objects background, nearly surely."""
    volume = open_volume(results.foreground)
    everything = Box.of_shape(volume.meta.shape)
    foreground = volume.read(everything)
    inside = ndimage.binary_erosion(foreground > 200, iterations=3)
    foreground[inside & (np.random.default_rng(0).random(inside.shape) < 0.2)] = 3
    volume.write(everything, foreground)


def segment_and_score(
    settings: Settings,
    name: str,
    layout: Layout,
    execution: Execution = SERIAL,
    shards: int = 1,
    edit: Edit | None = None,
) -> SegmentationResults:
    """Run all stages after training."""
    results = segment(settings, name, layout, execution, shards, edit)
    for stage in ("pyramid", "evaluate"):
        run_stage(stage, jobs.segmentation_job(settings, stage, name), layout, execution)
    return results


@dataclass(frozen=True)
class Trained:
    """A results folder with an indexed volume and a trained model."""

    layout: Layout
    tree: dict

    def segment(
        self, name: str, execution: Execution = SERIAL, shards: int = 1, edit: Edit | None = None, **section
    ) -> SegmentationResults:
        """Run all stages after training under a name of their own."""
        tree = copy.deepcopy(self.tree)
        tree["segmentations"] = {name: tree["segmentations"]["balls"] | section}
        return segment_and_score(parse_settings(tree), name, self.layout, execution, shards, edit)

    def with_long_volume(self, folder: Path) -> tuple[dict, np.ndarray]:
        """A configuration with one more volume, large enough for three levels, and its raw data."""
        tree = copy.deepcopy(self.tree)
        raw, labels = balls((40, 48, 144), seed=1)
        uris = {"raw": store(folder / "raw.zarr", raw), "truth": store(folder / "truth.zarr", labels)}
        tree["volumes"]["long"] = {name: {"uri": uri} for name, uri in uris.items()}
        run_labels(jobs.labels_job(parse_settings(tree), "long"), self.layout.volume("long"), Execution())
        return tree, raw
