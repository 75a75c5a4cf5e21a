"""What stage `train` does with the pseudo-labels that stage `agree` wrote."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq

from spoco_blocks.engine.layout import Layout, PseudoResults
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.grid import Box, triple
from spoco_blocks.learn.checkpoint import load_checkpoint
from spoco_blocks.learn.crops import Part
from spoco_blocks.learn.pseudo import PseudoLabels
from spoco_blocks.learn.train import Training
from spoco_blocks.settings.jobs import TrainJob
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.sources import open_source


def read_teaching(job: TrainJob, layout: Layout) -> dict[str, Manifest]:
    """Read the manifests of the pseudo-labels of each volume; none for a model that learns from the labels alone."""
    if job.teaching is None:
        return {}
    teacher = layout.model(job.teaching.teacher)
    return {volume.volume: Manifest.read(teacher.pseudo(volume.volume).manifest) for volume in job.volumes}


def add_pseudo_labels(job: TrainJob, parts: list[Part], layout: Layout) -> list[Part]:
    """Give the training volumes with the teacher's pseudo-labels, as they are for a model without a teacher."""
    if job.teaching is None:
        return parts
    teacher = layout.model(job.teaching.teacher)
    return [
        with_pseudo_labels(part, teacher.pseudo(volume.volume), shell=job.teaching.shell)
        for volume, part in zip(job.volumes, parts, strict=True)
    ]


def start_from_teacher(job: TrainJob, training: Training, layout: Layout) -> None:
    """Give f and g the teacher's weights, where the settings ask for it."""
    if job.teaching is None or not job.teaching.continue_training:
        return
    checkpoint = load_checkpoint(layout.model(job.teaching.teacher).checkpoint)
    training.start_from(checkpoint.weights, checkpoint.weights_ema)


def without_pseudo_labels(part: Part) -> Part:
    """Give a training volume as its annotations alone say: what judges a model is not what its teacher made."""
    supervision = replace(part.volume.supervision, pseudo=None)
    anchors = {number: voxels for number, voxels in part.volume.anchors.items() if number >= 0}
    volume = replace(part.volume, supervision=supervision, anchors=anchors, _tiles=OrderedDict(), _bytes=0)
    return replace(part, volume=volume)


def with_pseudo_labels(part: Part, results: PseudoResults, *, shell: bool) -> Part:
    """Give a training volume with pseudo-labels, from which crops come like from annotated objects."""
    start, stop = Manifest.read(results.manifest).result["part"]
    supervision = part.volume.supervision
    pseudo = PseudoLabels(
        labels=open_source(Source(uri=str(results.labels))),
        background=open_source(Source(uri=str(results.background))),
        part=Box(triple(start), triple(stop)),
        shell=supervision.shell if shell else (0, 0, 0),
    )
    table = pq.read_table(results.anchors).to_pydict()
    positions = np.stack([np.array(table[axis], np.int64) for axis in "zyx"], 1).reshape(-1, 3)
    owner = np.array(table["id"], np.int64)
    if part.volume.images is not None:  # the networks segment all images, crops come from the chosen ones only
        chosen = np.isin(positions[:, 0], part.volume.images)
        positions, owner = positions[chosen], owner[chosen]
    # Negative, because the keys of annotated objects are the user's ids.
    frame = part.volume.resampling
    anchors = {-int(i): frame.positions(positions[owner == i]) for i in np.unique(owner)}
    volume = replace(
        part.volume, supervision=replace(supervision, pseudo=pseudo), anchors=part.volume.anchors | anchors
    )
    return replace(part, volume=volume)
