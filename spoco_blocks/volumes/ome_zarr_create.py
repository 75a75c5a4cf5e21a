"""New OME-Zarr images and label images: the group, its metadata and the empty array of every level."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import DTypeLike

from spoco_blocks.errors import VolumeError
from spoco_blocks.grid import Triple
from spoco_blocks.volumes.layout import VoxelSize
from spoco_blocks.volumes.object_store import reaching, zarr_store
from spoco_blocks.volumes.ome_zarr import ome_attributes, open_ome_zarr
from spoco_blocks.volumes.pipeline import codec_pipeline
from spoco_blocks.volumes.zarr_array import ZarrVolume, create_array, open_node, refuse_existing

Version = Literal["0.4", "0.5"]
_ZARR_FORMAT: dict[str, Literal[2, 3]] = {"0.4": 2, "0.5": 3}


def create_ome_zarr(
    uri: str,
    *,
    shape: Triple,
    dtype: DTypeLike,
    chunk_shape: Triple,
    shard_shape: Triple | None,
    voxel_size_nm: VoxelSize | None,
    levels: int,
    factors: Sequence[Triple],
    is_label: bool,
    name: str,
    version: Version = "0.5",
    channels: int | None = None,
    windows: Sequence[tuple[float, float]] = (),
    overwrite: bool = False,
) -> list[ZarrVolume]:
    """Create an OME-Zarr image with empty levels.

    A label image at ``IMAGE.zarr/labels/NAME`` joins the list of labels of that image, which must exist; a label image
    anywhere else stands alone.

    Parameters
    ----------
    uri : str
        Where the image group shall be.
    shape : tuple of int
        Extent of level 0 along z, y, x.
    dtype : numpy.dtype
        Data type.
    chunk_shape : tuple of int
        Smallest unit of reading along z, y, x, on every level; holds all channels.
    shard_shape : tuple of int or None
        Smallest unit of writing along z, y, x, on every level, a multiple of the chunk; None where every chunk is a
        file of its own, as always in version 0.4.
    voxel_size_nm : tuple of float or None
        Extent of a voxel of level 0 along z, y, x in nm; None writes no unit.
    levels : int
        Number of levels, level 0 included.
    factors : sequence of tuple of int
        How much coarser each level is than the one before, along z, y, x: ``levels - 1`` of them. An extent that is no
        multiple is rounded up.
    is_label : bool
        Whether this is a label image.
    name : str
        Name of the image in its metadata.
    version : str
        "0.5" (Zarr format 3, may be sharded) or "0.4" (Zarr format 2).
    channels : int, optional
        Number of channels; one channel is stored and presented without a channel axis.
    windows : sequence of (float, float)
        Intensities that viewers show as black and as white, for each channel; none leaves it to them.
    overwrite : bool
        Whether to replace what is there.

    Returns
    -------
    list of Volume
        The levels, finest first, writable.

    Raises
    ------
    VolumeError
        When something is there already, or levels, factors, chunks, shards and version do not fit each other.
    """
    if version not in _ZARR_FORMAT:
        raise VolumeError(f'{uri}: cannot create OME-Zarr version "{version}"; expected one of {list(_ZARR_FORMAT)}.')
    if levels < 1 or len(factors) != levels - 1 or any(min(f) < 1 for f in factors):
        raise VolumeError(f"{uri}: {levels} levels need {levels - 1} factors of at least 1; got {list(factors)}.")
    uri = uri.rstrip("/")
    refuse_existing(uri, overwrite)
    labels = _labels_group(uri, version) if is_label else None
    with reaching(uri), codec_pipeline(fast=False):
        zarr.create_group(zarr_store(uri), zarr_format=_ZARR_FORMAT[version], overwrite=overwrite)
    cumulative = list(accumulate(factors, _times, initial=(1, 1, 1)))
    for level, factor in enumerate(cumulative):
        create_array(
            f"{uri}/{level}",
            axes="zyx",
            shape=_times(shape, factor, up=False),
            channels=channels,
            dtype=dtype,
            chunk_shape=chunk_shape,
            shard_shape=shard_shape,
            zarr_format=_ZARR_FORMAT[version],
        )
    attributes: dict[str, Any] = {
        "multiscales": [_multiscale(name, cumulative, voxel_size_nm, (channels or 1) > 1, is_label)]
    }
    if windows:
        attributes["omero"] = {"channels": [_channel(dtype, *window) for window in windows]}
    if is_label:
        attributes["image-label"] = {"source": {"image": "../../"}} if labels else {}
    _describe(uri, attributes, version)
    if labels:
        _register(labels, uri.rpartition("/")[2], version)
    return [open_ome_zarr(uri, level=level) for level in range(levels)]


def _times(a: Triple, b: Triple, *, up: bool = True) -> Triple:
    z, y, x = (i * j if up else -(-i // j) for i, j in zip(a, b, strict=True))
    return z, y, x


def _multiscale(
    name: str, cumulative: list[Triple], voxel_size_nm: VoxelSize | None, has_channels: bool, is_label: bool
) -> dict[str, Any]:
    unit = {"unit": "nanometer"} if voxel_size_nm else {}
    first = [1.0] if has_channels else []
    datasets = []
    for level, factor in enumerate(cumulative):
        size = voxel_size_nm or (1.0, 1.0, 1.0)
        transformations: list[dict[str, Any]] = [
            {"type": "scale", "scale": first + [s * f for s, f in zip(size, factor, strict=True)]}
        ]
        if level:
            # coordinates name voxel centres, and a window's centre lies beyond that of its first voxel
            offset = [s * (f - 1) / 2 for s, f in zip(size, factor, strict=True)]
            transformations.append({"type": "translation", "translation": [0.0] * len(first) + offset})
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
    return {
        "name": name,
        "axes": [{"name": "c", "type": "channel"}] * has_channels
        + [{"name": a, "type": "space", **unit} for a in "zyx"],
        "datasets": datasets,
        "type": "mode" if is_label else "mean",
    }


def _channel(dtype: DTypeLike, black: float, white: float) -> dict[str, Any]:
    kind = np.dtype(dtype)
    least, most = (np.iinfo(kind).min, np.iinfo(kind).max) if kind.kind in "iu" else (black, white)
    window = {"min": float(least), "max": float(most), "start": float(black), "end": float(white)}
    return {"color": "FFFFFF", "active": True, "window": window}


def _describe(uri: str, attributes: dict[str, Any], version: Version) -> None:
    if version == "0.5":
        attributes = {"ome": {"version": version, **attributes}}
    else:
        for part in (*attributes.get("multiscales", ()), attributes.get("image-label")):
            if part is not None:
                part["version"] = version
    with reaching(uri), codec_pipeline(fast=False):
        zarr.open_group(zarr_store(uri), mode="r+").attrs.update(attributes)


def _labels_group(uri: str, version: Version) -> str | None:
    """Give the `labels` group that a new label image belongs to; None when it stands alone."""
    match = re.fullmatch(r"(?P<image>.+)/labels/[^/]+", uri)
    if match is None:
        return None
    image = open_node(match["image"])
    if not isinstance(image, zarr.Group):
        raise VolumeError(
            f"{uri}: there is no image {match['image']} that the labels could belong to; create it first, or write the "
            "labels as an image of their own, outside of a folder called labels."
        )
    if image.metadata.zarr_format != _ZARR_FORMAT[version]:
        raise VolumeError(
            f'{uri}: OME-Zarr version "{version}" cannot join {match["image"]}, which is of Zarr format '
            f"{image.metadata.zarr_format}; create the labels in the version of the image."
        )
    return f"{match['image']}/labels"


def _register(labels_uri: str, name: str, version: Version) -> None:
    group = open_node(labels_uri)
    if group is None or "labels" not in ome_attributes(group):
        with reaching(labels_uri), codec_pipeline(fast=False):
            zarr.open_group(zarr_store(labels_uri), mode="a", zarr_format=_ZARR_FORMAT[version])
        known: list[str] = []
    else:
        known = ome_attributes(group)["labels"]
    if name not in known:
        _describe(labels_uri, {"labels": [*known, name]}, version)
