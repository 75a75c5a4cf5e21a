"""The check before any work is spent: everything that the configuration names is there and fits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from spoco_blocks.errors import VolumeError
from spoco_blocks.learn.resample import SAME_SIZE, zoom_between
from spoco_blocks.settings.base import LengthsNm
from spoco_blocks.settings.jobs import CheckJob, LabelsJob
from spoco_blocks.stages.block_shapes import pyramid_factors
from spoco_blocks.stages.mask import open_mask
from spoco_blocks.stages.precomputed import check_level, check_library
from spoco_blocks.stages.sources import check_volume, chosen_part, open_like
from spoco_blocks.volumes import Volume

VOXEL_SIZE_TOLERANCE = 0.1
# Farther apart, most voxels of a crop would be read for nothing, or made up.
RESAMPLED_AT_MOST = 4


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
            open_like(section.truth, opened[name], "truth")
            if section.truth.ignore is not None:
                open_like(section.truth.ignore, opened[name], "mask of what is not scored")
            chosen_part(section.truth, opened[name], independent=opened[name].meta.independent_images)
        if section.mask is not None:
            open_mask(section.mask, opened[name])
    for model, volumes in job.trained_on.items():
        if volumes:
            wanted = job.model_voxel_size_nm[model]
            check_trainable(model, wanted, {name: opened[name] for name in volumes})
            for name in job.segmented[model]:
                check_alike(model, wanted, volumes[0], opened[volumes[0]], name, opened[name])
    check_shapes(job, opened)
    return opened


def check_trainable(model: str, voxel_size_nm: LengthsNm | None, volumes: Mapping[str, Volume]) -> None:
    """Check that a model can learn from all its volumes, the first of which decides what is not set.

    Raises
    ------
    VolumeError
        When channels or dimension differ, or voxel sizes too much.
    """
    (first_name, first), *_ = volumes.items()
    size = voxel_size_nm or first.meta.voxel_size_nm
    for name, volume in volumes.items():
        if _kind(volume) != _kind(first):
            raise VolumeError(_unlike(model, size, first_name, first, name, volume))
        stored = volume.meta.voxel_size_nm
        assert size is not None
        assert stored is not None
        zoom = zoom_between(stored, size, _kind(volume)[1])
        if max(*zoom, 1 / min(zoom)) > RESAMPLED_AT_MOST * (1 + SAME_SIZE):
            raise VolumeError(
                f"model {model} is trained at {size} nm a voxel, its volume {name} has {stored}: more than "
                f"{RESAMPLED_AT_MOST} times apart along an axis. Choose the `level` of its pyramid that comes nearest, "
                f"or another models.{model}.voxel_size_nm."
            )


def check_alike(
    model: str, voxel_size_nm: LengthsNm | None, first_name: str, first: Volume, name: str, volume: Volume
) -> None:
    """Check that a model that was trained on one volume, first of several, can be applied to another.

    Raises
    ------
    VolumeError
        When channels, dimension or voxel size differ.
    """
    size = voxel_size_nm or first.meta.voxel_size_nm
    sizes = np.array(size), np.array(volume.meta.voxel_size_nm)
    if _kind(first) != _kind(volume) or not np.allclose(*sizes, rtol=VOXEL_SIZE_TOLERANCE):
        raise VolumeError(_unlike(model, size, first_name, first, name, volume))


def _kind(volume: Volume) -> tuple[int, bool]:
    return volume.meta.channels or 1, volume.meta.independent_images or volume.meta.shape[0] == 1


def _unlike(
    model: str, voxel_size_nm: LengthsNm | None, first_name: str, first: Volume, name: str, volume: Volume
) -> str:
    described = [
        f"{n} has {channels} channel(s), {'2D images' if planar else '3D'}, {tuple(map(float, size or ()))} nm a voxel"
        for n, (channels, planar), size in (
            (first_name, _kind(first), first.meta.voxel_size_nm),
            (name, _kind(volume), volume.meta.voxel_size_nm),
        )
    ]
    return (
        f"model {model}, trained at {tuple(map(float, voxel_size_nm or ()))} nm a voxel, cannot serve both volumes: "
        f"{described[0]}; {described[1]}. Choose the `level` at which they agree, or train a model for each."
    )


def check_shapes(job: CheckJob, opened: Mapping[str, Volume]) -> None:
    """Check that segmentations can have the meshes and skeletons they are to have; `opened` is all volumes' raw data.

    Raises
    ------
    VolumeError
        When one is of 2D images, or its pyramid will not have the level.
    """
    wanted = [(name, "meshes", volume, section.level) for name, (volume, section) in job.meshes.items()]
    wanted += [(name, "skeletons", volume, section.level) for name, (volume, section) in job.skeletons.items()]
    for name, kind, volume, level in wanted:
        meta, (_, planar) = opened[volume].meta, _kind(opened[volume])
        assert meta.voxel_size_nm is not None
        levels = 1 + len(pyramid_factors(meta.shape, meta.voxel_size_nm, planar))
        check_level(name, kind, level, levels, planar=planar)
        check_library(kind)
