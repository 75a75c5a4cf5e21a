"""Opening the volumes that a configuration names, and checking that they fit together."""

from __future__ import annotations

from functools import lru_cache

from spoco_blocks.errors import VolumeError
from spoco_blocks.grid import Box, triple
from spoco_blocks.settings.base import LengthsNm
from spoco_blocks.settings.jobs import LabelsJob
from spoco_blocks.settings.sections import LabelSettings, Region, Source
from spoco_blocks.volumes import Volume, open_volume


@lru_cache(maxsize=64)
def open_source(source: Source, voxel_size_nm: LengthsNm | None = None) -> Volume:
    """Open a volume once per process; workers get only the section."""
    return open_volume(source.uri, level=source.level, axes=source.axes, voxel_size_nm=voxel_size_nm)


def open_raw(raw: Source, voxel_size_nm: LengthsNm | None) -> Volume:
    """Open raw data and check that it can be segmented.

    Raises
    ------
    VolumeError
        When it holds no numbers, or its voxel size is nowhere stated.
    """
    volume = open_source(raw, voxel_size_nm)
    if volume.meta.dtype.kind not in "uif":
        raise VolumeError(f"{volume.uri} holds {volume.meta.dtype}; expected integers or floats.")
    if volume.meta.voxel_size_nm is None:
        raise VolumeError(
            f"{volume.uri} does not state its voxel size; write it into the configuration as "
            "voxel_size_nm: [z, y, x] of that volume (in nm; use equal numbers if only the shape of a voxel is known)."
        )
    return volume


def open_like(source: Source, raw: Volume, what: str) -> Volume:
    """Open labels, truth or a mask, and check that it covers the raw data voxel by voxel.

    Raises
    ------
    VolumeError
        When the shapes differ, or the axes do.
    """
    axes = source.axes or ("nyx" if raw.meta.independent_images else None)
    volume = open_source(source.model_copy(update={"axes": axes}))
    if volume.meta.channels is not None:
        raise VolumeError(f"{what} {volume.uri} has {volume.meta.channels} channels; expected axes z, y, x only.")
    if volume.meta.shape != raw.meta.shape:
        raise VolumeError(
            f"{what} {volume.uri} has shape {volume.meta.shape}, raw {raw.uri} has {raw.meta.shape} (z, y, x); both "
            "must show the same voxels. Check `level` of each."
        )
    return volume


def region_box(region: Region | None, raw: Volume) -> Box:
    """Turn a region of the configuration into a box of the volume that is read.

    Raises
    ------
    VolumeError
        When nothing of the volume lies in the region.
    """
    whole = Box.of_shape(raw.meta.shape)
    if region is None:
        return whole
    size = raw.meta.voxel_size_nm or (1.0, 1.0, 1.0)
    in_nm = region.start_nm is not None or region.stop_nm is not None
    unit = size if in_nm else (1.0, 1.0, 1.0)
    starts = (region.start_nm if in_nm else region.start_voxels) or (None, None, None)
    stops = (region.stop_nm if in_nm else region.stop_voxels) or (None, None, None)
    start = triple(0 if a is None else max(0, round(a / u)) for a, u in zip(starts, unit, strict=True))
    stop = triple(
        extent if b is None else min(extent, round(b / u))
        for b, u, extent in zip(stops, unit, raw.meta.shape, strict=True)
    )
    if any(b <= a for a, b in zip(start, stop, strict=True)):
        raise VolumeError(
            f"the region {region.model_dump(exclude_none=True)} holds no voxel of {raw.uri}, whose shape is "
            f"{raw.meta.shape} at {size} nm a voxel."
        )
    return Box(start, stop)


def check_volume(job: LabelsJob) -> tuple[Volume, Volume | None, Box]:
    """Open raw data and labels and give them with the annotated region."""
    raw = open_raw(job.raw, job.voxel_size_nm)
    if job.labels is None:
        return raw, None, Box.of_shape(raw.meta.shape)
    labels = open_like(label_source(job.labels), raw, "labels")
    for mask, what in ((job.labels.background, "background mask"), (job.labels.ignore, "ignore mask")):
        if mask is not None:
            open_like(mask, raw, what)
    return raw, labels, region_box(job.labels.region, raw)


def label_source(labels: Source) -> Source:
    """Give only where a volume is, without what is to be done with it."""
    return Source(uri=labels.uri, level=labels.level, axes=labels.axes)


def shell_voxels(labels: LabelSettings, isotropic: tuple[bool, bool, bool]) -> tuple[int, int, int]:
    """Give the shell along z, y, x: none across coarse sections, where the next voxel may well be the object."""
    return triple(labels.shell_voxels if fine else 0 for fine in isotropic)
