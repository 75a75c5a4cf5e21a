"""Stage `annotation_baseline`: what the classical chain reaches where all labels of the training part tune it."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.errors import LabelsError, VolumeError
from spoco_blocks.grid import Box
from spoco_blocks.kernels.classical import Classical, LabelledPart, compare, excerpts, tune
from spoco_blocks.kernels.contingency import merge_tables
from spoco_blocks.kernels.scores import Scores, scores
from spoco_blocks.settings.annotation_jobs import AnnotationBaselineJob
from spoco_blocks.settings.jobs import LabelsJob, digest
from spoco_blocks.settings.sections import LabelSettings, TruthSettings
from spoco_blocks.stages.sources import check_volume, chosen_part, open_like
from spoco_blocks.volumes import Volume, read_instances

log = logging.getLogger(__name__)

VERSION = 1
TUNED_VOXELS = 2**20
SCORED_VOXELS = 2**28


def run_annotation_baseline(job: AnnotationBaselineJob, layout: Layout, content: str = "") -> Manifest:
    """Tune the chain on the labels of the training part, then score it once against the truth.

    Parameters
    ----------
    job : AnnotationBaselineJob
        Whose labels, whose truth.
    layout : Layout
        The results folder; stage `labels` has run for every volume.
    content : str
        Fingerprint of what the labels' and the truth's stores hold.

    Raises
    ------
    LabelsError
        When the labels hold nothing to tune on.
    VolumeError
        When the region to score does not fit into memory at once.
    """
    names = {volume.volume for volume in (*job.training, job.volume)}
    inputs = {f"labels/{name}": Manifest.read(layout.volume(name).manifest).digest for name in sorted(names)}
    identity = digest("annotation_baseline", VERSION, job.model_dump(mode="json"), inputs, content)
    watch = Stopwatch("annotation_baseline", identity, inputs)
    parts = [
        part for volume in job.training for part in labelled_parts(volume, layout, TUNED_VOXELS // len(job.training))
    ]
    smallest = min(volume.labels.min_voxels for volume in job.training if volume.labels is not None)
    raw, _, _ = check_volume(job.volume)
    spacing = raw.meta.voxel_size_nm
    assert spacing is not None
    if len({len(part.image) == 1 for part in parts}) > 1:
        raise LabelsError("the classical baseline is tuned on images or on volumes, not on both; got some of each.")
    chain, tuned = tune(parts, spacing, min_voxels=smallest)
    log.info("%s: AP50 %.3f on what it was tuned on", chain, tuned.ap50)
    found = score(chain, raw, job.truth, intensities(job.volume, layout))
    result = {
        "job": job.model_dump(mode="json"),
        "chain": asdict(chain),
        "tuned": asdict(tuned),
        "scores": asdict(found),
    }
    return watch.finish(layout.annotation_curve.baseline, result)


def intensities(job: LabelsJob, layout: Layout) -> tuple[NDArray[Any], NDArray[Any]]:
    """Give the low and high intensity of each channel, (c, 1, 1, 1), that stage `labels` found."""
    found = Manifest.read(layout.volume(job.volume).manifest).result
    low, high = (np.array(found[f"intensity_{end}"], np.float32)[:, None, None, None] for end in ("low", "high"))
    return low, high


def read_image(raw: Volume, box: Box, range_of: tuple[NDArray[Any], NDArray[Any]]) -> NDArray[np.float32]:
    """Read a box with intensities that compare between volumes; channels are averaged."""
    low, high = range_of
    voxels = raw.read(box).astype(np.float32)
    channels = voxels if voxels.ndim == 4 else voxels[None]
    image: NDArray[np.float32] = ((channels - low) / (high - low)).mean(0, dtype=np.float32)
    return image


def part_and_images(section: LabelSettings | TruthSettings, raw: Volume) -> tuple[Box, tuple[int, ...] | None]:
    """Give the box of labels or truth and, of independent images, the numbers of those in it."""
    independent = raw.meta.independent_images
    region, images = chosen_part(section, raw, independent=independent)
    if not independent:
        return region, None
    return region, images or tuple(range(region.start[0], region.stop[0]))


def labelled_parts(job: LabelsJob, layout: Layout, max_voxels: int) -> list[LabelledPart]:
    """Read what the chain is tuned on: of a large region a part, with all of its objects."""
    raw, labels, _ = check_volume(job)
    assert labels is not None
    assert job.labels is not None
    region, images = part_and_images(job.labels, raw)
    range_of = intensities(job, layout)
    return [
        LabelledPart(read_image(raw, box, range_of), read_instances(labels, box))
        for box in excerpts(region, images, max_voxels)
    ]


def score(chain: Classical, raw: Volume, truth: TruthSettings, range_of: tuple[NDArray[Any], NDArray[Any]]) -> Scores:
    """Segment the truth's region and compare; independent images one at a time."""
    region, images = part_and_images(truth, raw)
    boxes = excerpts(region, images, region.size)
    if max(box.size for box in boxes) > SCORED_VOXELS:
        raise VolumeError(
            f"the region to score holds {region.size} voxels at once; the classical baseline can do {SCORED_VOXELS}. "
            "Make truth.region smaller."
        )
    volume = open_like(truth, raw, "truth")
    ignore = None if truth.ignore is None else open_like(truth.ignore, raw, "mask of what is not scored")
    assert raw.meta.voxel_size_nm is not None
    tables = []
    for number, box in enumerate(boxes):
        counted = True if ignore is None else ignore.read(box) == 0
        segments = chain(read_image(raw, box, range_of), raw.meta.voxel_size_nm)
        tables.append(compare(number, read_instances(volume, box) * counted, segments * counted))
    return scores(*merge_tables(tables), min_voxels=truth.min_voxels)
