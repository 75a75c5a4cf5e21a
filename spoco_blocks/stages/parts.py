"""A volume that a model learns from, with what stage `labels` found. Needs no PyTorch: `agree` reads annotations so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spoco_blocks.engine.layout import Layout, VolumeResults
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.grid import Box, triple
from spoco_blocks.learn.crops import Part, TrainingVolume
from spoco_blocks.learn.intensity import Normalisation
from spoco_blocks.learn.network_plan import isotropic_axes
from spoco_blocks.learn.resample import Resampling, Sizes, zoom_between
from spoco_blocks.learn.supervision import Supervision
from spoco_blocks.settings.jobs import LabelsJob
from spoco_blocks.stages.sources import check_volume, chosen_part, margin_voxels, open_like, region_box, shell_voxels


def open_part(job: LabelsJob, source: Manifest, layout: Layout, voxel_size_nm: Sizes) -> Part:
    """Open one training volume, in voxels of a model, with what stage `labels` found."""
    raw, labels, region = check_volume(job)
    assert labels is not None
    assert job.labels is not None
    found, result, settings = layout.volume(job.volume), source.result, job.labels
    planar, stored_nm = result["planar"], triple_of_floats(result["voxel_size_nm"])
    frame = Resampling(zoom_between(stored_nm, voxel_size_nm, planar), region)
    training = box_of(result["training"])
    objects = pq.read_table(found.objects).to_pydict()
    kept = np.array([i for i, a in zip(objects["id"], objects["annotated"], strict=True) if a], np.uint64)
    isotropic = isotropic_axes(voxel_size_nm, raw.meta.independent_images)
    supervision = Supervision(
        labels=labels,
        kept=np.sort(kept),
        region=region,
        background=None if settings.background is None else open_like(settings.background, raw, "background mask"),
        ignore=None if settings.ignore is None else open_like(settings.ignore, raw, "ignore mask"),
        dense=settings.dense,
        background_fraction=settings.background_fraction,
        shell=frame.lengths(shell_voxels(settings, isotropic)),
        seed=settings.seed,
        dense_boxes=tuple(region_box(box, raw) for box in settings.dense_regions),
        margin=frame.lengths(margin_voxels(settings, voxel_size_nm, planar)),
    )
    volume = TrainingVolume(
        raw=raw,
        normalisation=Normalisation(tuple(result["intensity_low"]), tuple(result["intensity_high"])),
        supervision=supervision,
        anchors={i: frame.positions(voxels) for i, voxels in read_anchors(found, training).items()},
        images=chosen_part(settings, raw, independent=raw.meta.independent_images)[1],
        zoom=frame.zoom,
    )
    validation = None if result["validation"] is None else frame.inside(box_of(result["validation"]))
    return Part(volume, frame.inside(training), validation, isotropic)


def read_anchors(found: VolumeResults, within: Box) -> dict[int, NDArray[np.int64]]:
    """Read a few stored voxels (n, 3) of each annotated object that has any in a box."""
    table = pq.read_table(found.anchors).to_pydict()
    positions = np.stack([np.array(table[axis], np.int64) for axis in "zyx"], 1).reshape(-1, 3)
    inside = np.logical_and(positions >= within.start, positions < within.stop).all(1)
    owner = np.array(table["id"], np.uint64)[inside]
    order = np.argsort(owner, kind="stable")
    ids, starts = np.unique(owner[order], return_index=True)
    groups = np.split(positions[inside][order], starts[1:])
    return {int(i): group for i, group in zip(ids, groups, strict=False)}


def box_of(corners: Any) -> Box:
    """Read a box back from a manifest."""
    start, stop = corners
    return Box(triple(start), triple(stop))


def triple_of_floats(values: Any) -> tuple[float, float, float]:
    """Read three floats back from a manifest."""
    z, y, x = values
    return float(z), float(y), float(x)
