"""Opening the volumes that a configuration names, and checking that they fit together."""

from __future__ import annotations

from functools import lru_cache
from math import ceil

from spoco_blocks.errors import VolumeError
from spoco_blocks.grid import Box, Triple, triple
from spoco_blocks.learn.network_plan import REACHES
from spoco_blocks.settings.base import LengthsNm
from spoco_blocks.settings.jobs import LabelsJob
from spoco_blocks.settings.sections import LabelSettings, Region, Source, TruthSettings
from spoco_blocks.volumes import Downscaled, JoinedLabels, Volume, open_volume


class IdSource(Source):
    """A stored volume of ids: what is read coarser are not means but the most frequent ids."""


@lru_cache(maxsize=64)
def open_source(source: Source, voxel_size_nm: LengthsNm | None = None) -> Volume:
    """Open a volume once per process; workers get only the section."""
    volume = open_volume(source.uri, level=source.level, axes=source.axes, voxel_size_nm=voxel_size_nm)
    if source.downscale is None:
        return volume
    return Downscaled(volume, source.downscale, ids=isinstance(source, IdSource))


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
    volume = open_source(id_source(source).model_copy(update={"axes": axes}))
    if volume.meta.channels is not None:
        raise VolumeError(f"{what} {volume.uri} has {volume.meta.channels} channels; expected axes z, y, x only.")
    if volume.meta.shape != raw.meta.shape:
        raise VolumeError(
            f"{what} {volume.uri} has shape {volume.meta.shape}, raw {raw.uri} has {raw.meta.shape} (z, y, x); both "
            "must show the same voxels. Check `level` and `downscale` of each."
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


def chosen_part(
    section: LabelSettings | TruthSettings, raw: Volume, *, independent: bool
) -> tuple[Box, tuple[int, ...] | None]:
    """Give the box that labels are read or scored in, and which of its independent images; None where all are.

    Raises
    ------
    VolumeError
        When nothing is left, or images are chosen where there are none.
    """
    region = region_box(section.region, raw)
    if section.images is None:
        return region, None
    if not independent:
        raise VolumeError(
            f"`images` chooses among independent 2D images; {raw.uri} has axes {raw.meta.axes}. Say axes: nyx if its "
            "first axis counts images, or use `region`."
        )
    (first, y0, x0), (last, y1, x1) = region.start, region.stop
    images = tuple(n for n in section.images.of(raw.meta.shape[0]) if first <= n < last)
    if not images:
        raise VolumeError(
            f"images {section.images.model_dump(exclude_none=True)} leaves none of the {raw.meta.shape[0]} images of "
            f"{raw.uri} in {region}; images are counted from 0."
        )
    return Box((images[0], y0, x0), (images[-1] + 1, y1, x1)), images


def check_volume(job: LabelsJob) -> tuple[Volume, Volume | None, Box]:
    """Open raw data and labels and give them with the annotated region."""
    raw = open_raw(job.raw, job.voxel_size_nm)
    if job.labels is None:
        return raw, None, Box.of_shape(raw.meta.shape)
    labels = open_labels(job.labels, raw)
    for region in job.labels.dense_regions:
        region_box(region, raw)
    for mask, what in ((job.labels.background, "background mask"), (job.labels.ignore, "ignore mask")):
        if mask is not None:
            open_like(mask, raw, what)
    if job.labels.keep_per == "image" and not (raw.meta.independent_images or raw.meta.shape[0] == 1):
        raise VolumeError(
            f"labels.keep_per: image needs independent 2D images; {raw.uri} has axes {raw.meta.axes}. Say axes: nyx if "
            "its first axis counts images, or leave keep_per out."
        )
    part, _ = chosen_part(job.labels, raw, independent=raw.meta.independent_images)
    return raw, labels, part


def open_labels(labels: LabelSettings, raw: Volume) -> Volume:
    """Open all label volumes of some raw data as one; a single one keeps its ids.

    Raises
    ------
    VolumeError
        When one of them does not cover the raw data.
    """
    main = open_like(labels, raw, "labels")
    if not labels.also:
        return main
    return JoinedLabels((main, *(open_like(source, raw, "labels.also") for source in labels.also)))


def id_source(source: Source) -> IdSource:
    """Give only where labels or a mask are, without what is to be done with them."""
    return IdSource(uri=source.uri, level=source.level, axes=source.axes, downscale=source.downscale)


def shell_voxels(labels: LabelSettings, isotropic: tuple[bool, bool, bool]) -> Triple:
    """Give the shell along z, y, x: none across coarse sections, where the next voxel may well be the object."""
    return triple(labels.shell_voxels if fine and not labels.partial else 0 for fine in isotropic)


def margin_voxels(labels: LabelSettings, voxel_size_nm: LengthsNm, planar: bool) -> Triple:
    """Give the margin of partial objects along z, y, x: one length, at least a voxel, never across images."""
    if not labels.partial:
        return 0, 0, 0
    z, y, x = voxel_size_nm
    # Nothing that the affinity head compares may reach across the margin.
    length = max(labels.partial_margin_voxels, *REACHES) * (min(y, x) if planar else min(z, y, x))
    return 0 if planar else ceil(length / z), ceil(length / y), ceil(length / x)
