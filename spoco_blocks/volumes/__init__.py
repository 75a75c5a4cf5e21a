"""Stored volumes: one file per format, opened by URI.

FORMATS is asked in order; the first whose `detects` says yes opens the volume.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from os import PathLike, fspath
from pathlib import Path

from spoco_blocks.errors import VolumeError, VolumeNotFoundError
from spoco_blocks.volumes import cityscapes, cvppp, hdf5, object_store, ome_zarr, tiff, zarr_array
from spoco_blocks.volumes.downscaled import Downscaled
from spoco_blocks.volumes.instances import read_instances
from spoco_blocks.volumes.joined import JoinedLabels
from spoco_blocks.volumes.layout import voxel_size_of
from spoco_blocks.volumes.object_store import is_remote, remove_tree, stored_bytes
from spoco_blocks.volumes.ome_zarr import Pyramid, find_pyramid
from spoco_blocks.volumes.ome_zarr_create import create_ome_zarr
from spoco_blocks.volumes.protocol import Volume, VolumeMeta
from spoco_blocks.volumes.zarr_array import choose_chunks, compressed_bytes, create_zarr
from spoco_blocks.volumes.zarr_array import detects as is_stored

__all__ = [
    "FORMATS",
    "Downscaled",
    "Format",
    "JoinedLabels",
    "Pyramid",
    "Volume",
    "VolumeMeta",
    "choose_chunks",
    "compressed_bytes",
    "create_ome_zarr",
    "create_zarr",
    "find_pyramid",
    "is_remote",
    "is_stored",
    "open_volume",
    "read_instances",
    "remove_tree",
    "stored_bytes",
]


@dataclass(frozen=True)
class Format:
    """How to recognise and open one format."""

    detects: Callable[[str], bool]
    open: Callable[..., Volume]


FORMATS = {
    "HDF5": Format(hdf5.detects, hdf5.open_hdf5),
    "TIFF": Format(tiff.detects, tiff.open_tiff),
    "OME-Zarr": Format(ome_zarr.detects, ome_zarr.open_ome_zarr),
    "Zarr": Format(zarr_array.detects, zarr_array.open_zarr),
    "CVPPP": Format(cvppp.detects, cvppp.open_cvppp),
    "Cityscapes": Format(cityscapes.detects, cityscapes.open_cityscapes),
}


def open_volume(
    uri: str | PathLike[str],
    *,
    level: int = 0,
    axes: str | None = None,
    voxel_size_nm: tuple[float, float, float] | None = None,
) -> Volume:
    """Open a stored volume of any known format.

    An axis t must have length 1 and is dropped; so is a channel axis of length 1; a 2D image is presented with z = 1.

    Parameters
    ----------
    uri : str or path
        ``IMAGE.zarr``, ``IMAGE.zarr/labels/NAME``, ``IMAGE.zarr/LEVEL``, a plain Zarr array (these also at
        ``s3://BUCKET/`` and ``https://SERVER/``), ``FILE.h5/DATASET``, ``FILE.tif``, ``FOLDER/rgb`` of a CVPPP folder,
        or ``FOLDER/leftImg8bit/SPLIT`` of Cityscapes.
    level : int
        Level of an OME-Zarr pyramid, 0 for full resolution.
    axes : str, optional
        Axes on disk instead of those that the store states or that follow from their number; "nyx" or "cnyx"
        for independent images.
    voxel_size_nm : tuple of float, optional
        Extent of a voxel of level 0 along z, y, x in nm, instead of that of the store; coarser levels scale it.

    Returns
    -------
    Volume
        The volume; nothing but metadata has been read.

    Raises
    ------
    VolumeNotFoundError
        When nothing is there.
    VolumeError
        When what is there cannot be read as a volume.
    """
    uri = fspath(uri).rstrip("/")
    if voxel_size_nm is not None and voxel_size_of(voxel_size_nm) is None:
        raise VolumeError(f"{uri}: voxel_size_nm must be three positive numbers along z, y, x; got {voxel_size_nm}.")
    for candidate in FORMATS.values():
        if candidate.detects(uri):
            return candidate.open(uri, level=level, axes=axes, voxel_size_nm=voxel_size_nm)
    if not is_remote(uri) and Path(uri).exists():
        names = _inside(Path(uri))
        further = f", or name the volume inside: {names}." if names else "."
        raise VolumeError(f"{uri}: is none of {', '.join(FORMATS)}; convert it, to OME-Zarr or TIFF{further}")
    raise VolumeNotFoundError(f"{uri}: nothing is stored there{_nearest(uri)}")


def _inside(path: Path) -> str:
    names = sorted(p.name for p in path.iterdir()) if path.is_dir() else []
    return ", ".join(names[:20])


def _nearest(uri: str) -> str:
    """Say how far the path exists and what is there instead."""
    if is_remote(uri):
        return (
            f"; check the address, and the credentials where it is not public ({object_store.CREDENTIALS}). OME-Zarr "
            "and Zarr can be read from there; copy other formats to a local path."
        )
    path = Path(uri)
    parent = next((p for p in path.parents if p.exists()), Path())
    missing = path.relative_to(parent).parts[0]
    node = zarr_array.open_node(str(parent))
    if node is not None and hasattr(node, "groups"):
        return f"; {parent} holds {zarr_array.children(node)}."
    names = [p.name for p in parent.iterdir()] if parent.is_dir() else []
    close = get_close_matches(missing, names, n=5, cutoff=0.5) or sorted(names)[:10]
    return f"; {missing!r} is missing in {parent}, which holds {', '.join(close) or 'nothing'}."
