"""HDF5 datasets, for reading. HDF5 cannot be written by several processes, so results never go there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from spoco_blocks.errors import VolumeError, VolumeNotFoundError
from spoco_blocks.volumes.layout import Index, Layout, StoredVolume, VoxelSize, layout_of, meta_of, voxel_size_of
from spoco_blocks.volumes.protocol import VolumeMeta, Voxels


class Hdf5Volume(StoredVolume):
    """A volume in an HDF5 dataset. The file is opened for each read: nothing stays open across a fork."""

    def __init__(self, uri: str, path: Path, dataset: str, meta: VolumeMeta, layout: Layout) -> None:
        super().__init__(uri, meta, layout)
        self._path = path
        self._dataset = dataset

    def _read(self, index: Index) -> Voxels:
        with _opened(self._path) as file:
            voxels: Voxels = file[self._dataset][index]
        return voxels

    def _write(self, index: Index, voxels: Voxels) -> None:
        raise VolumeError(f"{self.uri}: HDF5 is read only here; write to a Zarr volume instead (create_zarr).")


def _opened(path: Path) -> Any:
    # reading needs no lock, and many network file systems grant none
    return h5py.File(path, "r", locking=False)


def detects(uri: str) -> bool:
    """Tell whether the URI names an HDF5 file that exists."""
    path, _ = _split(uri)
    return path is not None and path.is_file()


def _split(uri: str) -> tuple[Path | None, str]:
    match = re.match(r"(?P<path>.+?\.(h5|hdf5|hdf))(/(?P<dataset>.*))?$", uri)
    return (Path(match["path"]), (match["dataset"] or "").strip("/")) if match else (None, "")


def open_hdf5(
    uri: str, *, level: int = 0, axes: str | None = None, voxel_size_nm: VoxelSize | None = None
) -> Hdf5Volume:
    """Open the dataset of ``FILE.h5/DATASET``; a file with one dataset needs no name.

    Axes come from ``axes``, else from an attribute `axes` of the dataset or the file, else from their number (yx, zyx,
    czyx). The voxel size comes from ``voxel_size_nm``, else from an attribute of that name or, in µm, from
    `element_size_um` (z, y, x).

    Raises
    ------
    VolumeError
        When the file is no HDF5, a level is asked for, or the axes do not fit.
    VolumeNotFoundError
        When there is no such dataset.
    """
    path, name = _split(uri)
    if path is None or not path.is_file():
        raise VolumeNotFoundError(f"{uri}: no HDF5 file there; expected FILE.h5/DATASET.")
    if level:
        raise VolumeError(f"{uri}: an HDF5 dataset has level 0 only; got level {level}.")
    try:
        opened = _opened(path)
    except OSError as error:
        raise VolumeError(f"{path}: cannot be read as HDF5 ({error}); copy it again.") from error
    with opened as file:
        dataset = _dataset(file, uri, name)
        layout = layout_of(uri, dataset.shape, axes or _named_axes(file, dataset))
        # contiguous datasets can be read row by row
        chunks = dataset.chunks or (1,) * (dataset.ndim - 1) + dataset.shape[-1:]
        size = voxel_size_nm or next(filter(None, map(_stated_size, (dataset, file))), None)
        meta = meta_of(uri, layout, dataset.dtype, chunks, None, size)
        return Hdf5Volume(f"{path}{dataset.name}", path, dataset.name, meta, layout)


def _dataset(file: Any, uri: str, name: str) -> Any:
    known: dict[str, Any] = {}
    file.visititems(lambda key, node: known.update({key: node}) if isinstance(node, h5py.Dataset) else None)
    if not name and len(known) == 1:
        return next(iter(known.values()))
    if name not in known:
        listed = ", ".join(f"{key} ({'x'.join(map(str, node.shape))} {node.dtype})" for key, node in known.items())
        wrong = f"no dataset {name!r}" if name else "names no dataset"
        example = f" Add one to the path: {uri.removesuffix(f'/{name}')}/{next(iter(known))}." if known else ""
        raise VolumeNotFoundError(f"{uri}: {wrong}; the file holds {listed or 'none'}.{example}")
    return known[name]


def _stated_size(node: Any) -> VoxelSize | None:
    microns = voxel_size_of(node.attrs.get("element_size_um"))
    return voxel_size_of(node.attrs.get("voxel_size_nm")) or (microns and voxel_size_of(np.multiply(microns, 1000)))


def _named_axes(file: Any, dataset: Any) -> str | None:
    for node in (dataset, file):
        stated = node.attrs.get("axes")
        if isinstance(stated, str) and len(stated) == dataset.ndim and set(stated.lower()) <= set("tcnzyx"):
            return stated.lower()
    return None
