"""What a model is trained with: all of its volumes, and network, patch and loss that suit them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.grid import triple
from spoco_blocks.learn.crops import Part, choose_patch, fit_patch
from spoco_blocks.learn.device import choose_training_device
from spoco_blocks.learn.distributed import Group
from spoco_blocks.learn.network_plan import plan_network
from spoco_blocks.learn.objective import Objective
from spoco_blocks.learn.resample import Sizes
from spoco_blocks.learn.train import Training
from spoco_blocks.settings.jobs import TrainJob
from spoco_blocks.stages.check import check_trainable
from spoco_blocks.stages.parts import open_part, triple_of_floats
from spoco_blocks.stages.pseudo import add_pseudo_labels, start_from_teacher


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
    planar, voxel_size_nm = first["planar"], model_voxel_size(job, sources)
    plan = plan_network(
        voxel_size_nm,
        in_channels=first["channels"],
        **job.network.size._asdict(),
        affinities=job.network.affinities,
        planar=planar,
    )
    length_nm = float(np.median([source.result["object_length_nm"] for source in sources]))
    opened = partial(open_parts, job, layout)
    parts = opened()
    scale_nm = coordinate_scale(job.training.coordinates, length_nm)
    radius_nm = job.training.loss.push_radius
    objective = Objective(
        job.training.loss,
        None if scale_nm is None else in_voxels(scale_nm, voxel_size_nm, planar),
        None if radius_nm is None else in_voxels(radius_nm, voxel_size_nm, planar),
        plan.offsets,
    )
    wanted = job.training.patch_voxels or choose_patch(length_nm, voxel_size_nm, planar)
    if planar:
        wanted = triple((1, *wanted[1:]))
    patch = triple(
        min(extents) for extents in zip(*(fit_patch(wanted, plan.stride, part.training) for part in parts), strict=True)
    )
    training = Training(
        plan,
        objective,
        patch,
        job.training,
        choose_training_device(threads),
        frame=(voxel_size_nm, planar),
        group=group,
        precision=None if state is None else state["training"]["precision"],
    )
    start_from_teacher(job, training, layout)
    return training, scale_nm, length_nm, opened


def model_voxel_size(job: TrainJob, sources: list[Manifest]) -> Sizes:
    """Give the voxel size in nm that a model is trained at: as set, or that of its first volume."""
    return triple_of_floats(job.voxel_size_nm or sources[0].result["voxel_size_nm"])


def smallest_object(sources: list[Manifest], voxel_size_nm: Sizes) -> int | None:
    """Give the size of a small annotated object in voxels of the model; None where objects are outlined in part.

    Of several volumes it is the least. Across independent images nothing is resampled.
    """
    sizes = []
    for found in (source.result for source in sources):
        if found["small_object_voxels"] is None:
            return None
        stored, axes = triple_of_floats(found["voxel_size_nm"]), slice(1 if found["planar"] else 0, None)
        ratio = np.array(stored[axes]) / np.array(voxel_size_nm[axes])
        sizes.append(float(found["small_object_voxels"] * ratio.prod()))
    return max(1, round(min(sizes)))


def open_parts(job: TrainJob, layout: Layout) -> list[Part]:
    """Open all training volumes of a model, each in the model's voxels.

    A function of what can be pickled alone, so that each data worker opens its own stores.

    Raises
    ------
    VolumeError
        When volumes do not go together.
    LedgerError
        When stage `labels` has not run.
    """
    sources = [Manifest.read(layout.volume(volume.volume).manifest) for volume in job.volumes]
    size = model_voxel_size(job, sources)
    parts = {v.volume: open_part(v, s, layout, size) for v, s in zip(job.volumes, sources, strict=True)}
    check_trainable(job.model, job.voxel_size_nm, {name: part.volume.raw for name, part in parts.items()})
    return add_pseudo_labels(job, list(parts.values()), layout)


def coordinate_scale(setting: float | str, object_length_nm: float) -> float | None:
    """Give the length in nm over which position adds 1 to the embedding: a quarter of the objects' length."""
    if setting == "none":
        return None
    return object_length_nm / 4 if setting == "auto" else float(setting)


def in_voxels(length_nm: float, voxel_size_nm: tuple[float, float, float], planar: bool) -> tuple[float, float, float]:
    """Give a length in voxels along z, y, x; endless across independent images."""
    z, y, x = (length_nm / size for size in voxel_size_nm)
    return (float("inf") if planar else z), y, x
