"""Running stage `plan`."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.learn.checkpoint import load_checkpoint, weights_digest
from spoco_blocks.settings.jobs import PlanJob, digest
from spoco_blocks.stages.output import int8_scale
from spoco_blocks.stages.plan.make import SAID_BY_THE_MODEL, check_fits, make_plan
from spoco_blocks.stages.plan.planned import Plan
from spoco_blocks.stages.plan.samples import largest_values
from spoco_blocks.stages.plan.stores import choose_place, create_stores

VERSION = 6


def run_plan(job: PlanJob, layout: Layout, content: str = "") -> Manifest:
    """Plan a segmentation and create its stores; `content` is a fingerprint of the mask.

    Raises
    ------
    CheckpointError
        When the model was made for other data.
    GridError
        When blocks and stores do not fit.
    VolumeError
        When the mask does not cover the raw data, or arrays of something else are where those of this shall be.
    """
    plan, watch = prepare(job, layout, content)
    results = choose_place(layout.segmentation(job.segmentation), job.arrays)
    create_stores(plan, results, job.ome_zarr_version)
    result = {"job": job.model_dump(mode="json"), "plan": plan.describe(), "blocks": len(plan.cluster_grid)}
    return watch.finish(results.manifest("plan"), result)


def prepare(job: PlanJob, layout: Layout, content: str = "") -> tuple[Plan, Stopwatch]:
    """Make a plan without creating anything."""
    labels = Manifest.read(layout.volume(job.volume.volume).manifest)
    path = Path(job.checkpoint) if job.checkpoint else layout.model(job.model).checkpoint
    checkpoint = load_checkpoint(path)
    inputs = {"labels": labels.digest, "weights": weights_digest(checkpoint, ema=job.weights == "g")}
    if job.both_networks:
        inputs["other_weights"] = weights_digest(checkpoint, ema=job.weights == "f")
    use = [getattr(checkpoint, name) for name in (*SAID_BY_THE_MODEL, "coordinate_scale_nm")]
    made = {"network": asdict(checkpoint.plan), "use": use}
    # What the segmentation is stored as changes nothing before it: its store is made anew, the others are kept.
    cut = job.model_dump(mode="json", exclude={"ome_zarr_version"})
    identity = digest("plan", VERSION, cut, inputs, made, content)
    watch = Stopwatch("plan", identity, inputs)
    check_fits(checkpoint, labels.result, path)
    plan = make_plan(job, labels.result, checkpoint, path)
    if job.embedding_type == "int8":
        plan = replace(plan, predicted=replace(plan.predicted, scale=int8_scale(largest_values(plan))))
    return plan, watch
