"""Opens the volumes of a training job, and plans network and patch from what stage `labels` found."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.grid import Box, triple
from spoco_blocks.learn.crops import Part, TrainingVolume, choose_patch, fit_patch
from spoco_blocks.learn.device import choose_training_device
from spoco_blocks.learn.distributed import Group
from spoco_blocks.learn.intensity import Normalisation
from spoco_blocks.learn.network import ISOTROPY, plan_network
from spoco_blocks.learn.objective import Objective
from spoco_blocks.learn.supervision import Supervision
from spoco_blocks.learn.train import Training
from spoco_blocks.settings.jobs import LabelsJob, TrainJob
from spoco_blocks.stages.check import check_alike
from spoco_blocks.stages.sources import check_volume, open_like, shell_voxels


def prepare(
    job: TrainJob,
    sources: list[Manifest],
    layout: Layout,
    threads: int,
    group: Group,
    state: dict[str, Any] | None,
) -> tuple[Training, float | None, float, Callable[[], list[Part]]]:
    """Plan network and patch.

    Gives the training, the coordinates' scale and the objects' length, both in nm, and what opens the volumes.
    """
    first = sources[0].result
    planar, voxel_size_nm = first["planar"], triple_of_floats(first["voxel_size_nm"])
    plan = plan_network(
        voxel_size_nm,
        in_channels=first["channels"],
        embedding_channels=job.network.embedding_channels,
        width=job.network.width,
        levels=job.network.levels,
        planar=planar,
    )
    length_nm = float(np.median([source.result["object_length_nm"] for source in sources]))
    opened = partial(open_parts, job, sources, layout)
    parts = opened()
    for volume, part in zip(job.volumes, parts, strict=True):
        check_alike(job.model, job.volumes[0].volume, parts[0].volume.raw, volume.volume, part.volume.raw)
    scale_nm = coordinate_scale(job.training.coordinates, length_nm)
    radius_nm = job.training.loss.push_radius
    objective = Objective(
        job.training.loss,
        None if scale_nm is None else in_voxels(scale_nm, voxel_size_nm, planar),
        None if radius_nm is None else in_voxels(radius_nm, voxel_size_nm, planar),
    )
    wanted = job.training.patch_voxels or choose_patch(length_nm, voxel_size_nm, planar)
    patch = triple(
        min(extents) for extents in zip(*(fit_patch(wanted, plan.stride, part.training) for part in parts), strict=True)
    )
    training = Training(
        plan,
        objective,
        patch,
        job.training,
        choose_training_device(threads),
        group=group,
        precision=None if state is None else state["training"]["precision"],
    )
    return training, scale_nm, length_nm, opened


def open_parts(job: TrainJob, sources: list[Manifest], layout: Layout) -> list[Part]:
    """Open all training volumes."""
    size_nm = triple_of_floats(sources[0].result["voxel_size_nm"])
    return [open_part(volume, source, layout, size_nm) for volume, source in zip(job.volumes, sources, strict=True)]


def open_part(job: LabelsJob, source: Manifest, layout: Layout, voxel_size_nm: tuple[float, float, float]) -> Part:
    """Open one training volume with what stage `labels` found."""
    raw, labels, region = check_volume(job)
    assert labels is not None
    assert job.labels is not None
    found, result = layout.volume(job.volume), source.result
    objects = pq.read_table(found.objects).to_pydict()
    anchors = pq.read_table(found.anchors).to_pydict()
    positions = np.stack([np.array(anchors[axis], np.int64) for axis in "zyx"], 1).reshape(-1, 3)
    owner = np.array(anchors["id"], np.uint64)
    training = box_of(result["training"])
    inside = np.logical_and(positions >= training.start, positions < training.stop).all(1)
    kept = np.array([i for i, a in zip(objects["id"], objects["annotated"], strict=True) if a], np.uint64)
    finest = min(voxel_size_nm[1:] if raw.meta.independent_images else voxel_size_nm)
    z, y, x = (size <= ISOTROPY * finest for size in voxel_size_nm)
    isotropic = (z and not raw.meta.independent_images, y, x)
    supervision = Supervision(
        labels=labels,
        kept=np.sort(kept),
        region=region,
        background=None if job.labels.background is None else open_like(job.labels.background, raw, "background mask"),
        ignore=None if job.labels.ignore is None else open_like(job.labels.ignore, raw, "ignore mask"),
        dense=job.labels.dense,
        background_fraction=job.labels.background_fraction,
        shell=shell_voxels(job.labels, isotropic),
        seed=job.labels.seed,
    )
    volume = TrainingVolume(
        raw=raw,
        normalisation=Normalisation(tuple(result["intensity_low"]), tuple(result["intensity_high"])),
        supervision=supervision,
        anchors={int(i): positions[(owner == i) & inside] for i in np.unique(owner[inside])},
    )
    validation = None if result["validation"] is None else box_of(result["validation"])
    return Part(volume, training, validation, isotropic)


def coordinate_scale(setting: float | str, object_length_nm: float) -> float | None:
    """Give the length in nm over which position adds 1 to the embedding: a quarter of the objects' length."""
    if setting == "none":
        return None
    return object_length_nm / 4 if setting == "auto" else float(setting)


def in_voxels(length_nm: float, voxel_size_nm: tuple[float, float, float], planar: bool) -> tuple[float, float, float]:
    """Give a length in voxels along z, y, x; endless across independent images."""
    z, y, x = (length_nm / size for size in voxel_size_nm)
    return (float("inf") if planar else z), y, x


def box_of(corners: Any) -> Box:
    """Read a box back from a manifest."""
    start, stop = corners
    return Box(triple(start), triple(stop))


def triple_of_floats(values: Any) -> tuple[float, float, float]:
    """Read three floats back from a manifest."""
    z, y, x = values
    return float(z), float(y), float(x)
