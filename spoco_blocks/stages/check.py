"""Stage `check`: everything that the configuration names is there and fits, before any work is spent."""

from __future__ import annotations

import numpy as np

from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.errors import VolumeError
from spoco_blocks.settings.jobs import CheckJob, LabelsJob, digest
from spoco_blocks.stages.sources import check_volume, chosen_part, label_source, open_like
from spoco_blocks.volumes import Volume

VERSION = 1
VOXEL_SIZE_TOLERANCE = 0.1


def check_sources(job: CheckJob) -> dict[str, Volume]:
    """Open every volume with its labels, masks and truth; give the raw data by name.

    Raises
    ------
    VolumeError, VolumeNotFoundError
        When something is missing or does not fit.
    """
    opened = {}
    for name, section in job.volumes.items():
        opened[name], *_ = check_volume(
            LabelsJob(volume=name, raw=section.raw, voxel_size_nm=section.voxel_size_nm, labels=section.labels)
        )
        if section.truth is not None:
            open_like(label_source(section.truth), opened[name], "truth")
            if section.truth.ignore is not None:
                open_like(section.truth.ignore, opened[name], "mask of what is not scored")
            chosen_part(section.truth, opened[name], independent=opened[name].meta.independent_images)
    for model, volumes in job.trained_on.items():
        alike = [*volumes, *job.segmented[model]] if volumes else []
        for name in alike[1:]:
            check_alike(model, alike[0], opened[alike[0]], name, opened[name])
    return opened


def check_alike(model: str, first_name: str, first: Volume, name: str, volume: Volume) -> None:
    """Check that one model can be used on two volumes.

    Raises
    ------
    VolumeError
        When channels, dimension or voxel sizes differ.
    """
    kinds = [(v.meta.channels or 1, v.meta.independent_images or v.meta.shape[0] == 1) for v in (first, volume)]
    sizes = [np.array(v.meta.voxel_size_nm) for v in (first, volume)]
    if kinds[0] != kinds[1] or not np.allclose(sizes[0], sizes[1], rtol=VOXEL_SIZE_TOLERANCE):
        described = [
            f"{n} has {channels} channel(s), {'2D images' if planar else '3D'}, {tuple(map(float, size))} nm a voxel"
            for n, (channels, planar), size in zip((first_name, name), kinds, sizes, strict=True)
        ]
        raise VolumeError(
            f"model {model} cannot serve both volumes: {described[0]}; {described[1]}. Choose the `level` at which "
            "they agree, or train a model for each."
        )


def run_check(job: CheckJob, layout: Layout) -> Manifest:
    """Check, and leave a manifest that the workflow waits for."""
    watch = Stopwatch("check", digest("check", VERSION, job.model_dump(mode="json")))
    opened = check_sources(job)
    return watch.finish(layout.check, {"volumes": {name: volume.meta.shape for name, volume in opened.items()}})
