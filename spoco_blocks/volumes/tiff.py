"""TIFF files, for reading: stacks as ImageJ, microscopes and OME write them. One file is one volume."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
import zarr

from spoco_blocks.errors import VolumeError, VolumeNotFoundError
from spoco_blocks.volumes.layout import Index, Layout, StoredVolume, VoxelSize, layout_of, meta_of, voxel_size_of
from spoco_blocks.volumes.protocol import VolumeMeta, Voxels

# Sections without a name are slices of a stack, samples of a pixel its channels.
_NAMES = str.maketrans("QIS", "ZZC")
_NM = {"nm": 1.0, "um": 1e3, "µm": 1e3, "μm": 1e3, "\\u00b5m": 1e3, "micron": 1e3, "microns": 1e3, "mm": 1e6, "cm": 1e7}
_NM |= {"å": 0.1, "angstrom": 0.1, "pm": 1e-3, "m": 1e9}


class TiffVolume(StoredVolume):
    """A volume in a TIFF file, which is opened for each read.

    Notes
    -----
    What lies uncompressed in one piece is read where it is. Else every strip or tile that a box meets is decoded whole.
    """

    def __init__(self, path: Path, order: tuple[int, ...], plain: np.memmap[Any, Any] | None, *described: Any) -> None:
        meta, layout = described
        super().__init__(str(path), meta, layout)
        self._path, self._order = path, order
        self._plain = None if plain is None else (plain.dtype, plain.offset, plain.shape)

    def _read(self, index: Index) -> Voxels:
        # In the order of the axes in the file.
        there = tuple(index[self._order.index(axis)] for axis in range(len(index)))
        if self._plain is not None:
            dtype, offset, shape = self._plain
            voxels: Voxels = np.memmap(self._path, dtype, "r", offset, shape)[there]
        else:
            with tifffile.TiffFile(self._path) as file, file.series[0].aszarr(level=0) as store:
                voxels = np.asarray(zarr.open_array(store, mode="r")[there])
        return voxels.transpose(self._order)

    def _write(self, index: Index, voxels: Voxels) -> None:
        raise VolumeError(f"{self.uri}: TIFF is read only here; write to a Zarr volume instead (create_zarr).")


def detects(uri: str) -> bool:
    """Tell whether the URI names a TIFF file that exists."""
    return re.search(r"\.tiff?$", uri, re.IGNORECASE) is not None and Path(uri).is_file()


def open_tiff(
    uri: str, *, level: int = 0, axes: str | None = None, voxel_size_nm: VoxelSize | None = None
) -> TiffVolume:
    """Open the first image of a TIFF file.

    Axes come from ``axes``, else from the file. The voxel size comes from ``voxel_size_nm``, else from what ImageJ or
    OME wrote.

    Raises
    ------
    VolumeError
        When the file is no TIFF, a level is asked for, the axes do not fit, or a package is missing to decompress it.
    VolumeNotFoundError
        When there is no such file.
    """
    path = Path(uri)
    if not path.is_file():
        raise VolumeNotFoundError(f"{uri}: no TIFF file there.")
    if level:
        raise VolumeError(f"{uri}: a TIFF file is read at level 0 only; got level {level}. Use downscale instead.")
    try:
        with _said() as said, tifffile.TiffFile(path) as file:
            _refuse_cut_off(uri, file, said)
            return _described(uri, path, file, axes, voxel_size_nm)
    except (tifffile.TiffFileError, IndexError, ValueError) as error:
        raise VolumeError(f"{path}: cannot be read as TIFF ({error}); copy it again.") from error


@contextmanager
def _said() -> Iterator[list[str]]:
    """Collect what tifffile logs: it says in no other way that a file ends before its next page."""
    said: list[str] = []
    listener = logging.Handler(logging.WARNING)
    listener.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    tifffile.logger().addHandler(listener)
    try:
        yield said
    finally:
        tifffile.logger().removeHandler(listener)


def _refuse_cut_off(uri: str, file: tifffile.TiffFile, said: list[str]) -> None:
    """Raise an error where the file holds less than it says, which would be opened as a smaller volume."""
    series, size = file.series[0], file.filehandle.size
    images = math.prod(n for n, axis in zip(series.shape, series.axes, strict=True) if axis not in "YXS")
    stated = max(int((file.imagej_metadata or {}).get("images", 1)), _ome_images(file))
    ends = [0 if series.dataoffset is None else series.dataoffset + series.nbytes]
    ends += [
        sum(last) for page in series.pages if page for last in zip(page.dataoffsets, page.databytecounts, strict=True)
    ]
    if stated > images or max(ends) > size or any(re.search("invalid .*offset", line) for line in said):
        of = f"{images} of {stated} images" if stated > images else f"{size} bytes, and names some that lie behind them"
        raise VolumeError(f"{uri}: is cut off: it holds {of}; copy it again.")


def _described(
    uri: str, path: Path, file: tifffile.TiffFile, axes: str | None, voxel_size_nm: VoxelSize | None
) -> TiffVolume:
    series = file.series[0]
    page = series.keyframe
    if page.compression not in tifffile.TIFF.DECOMPRESSORS:
        raise VolumeError(
            f"{uri}: is compressed ({tifffile.COMPRESSION(page.compression).name}) in a way that takes a further "
            "package: pip install imagecodecs, or save it uncompressed or with ZIP (deflate)."
        )
    order, layout = _layout(uri, series, axes)
    plain = None
    if series.dataoffset is not None:
        dtype = series.dtype.newbyteorder(file.byteorder)
        plain = np.memmap(path, dtype, "r", series.dataoffset, series.shape)
    # Slices are read one by one, and each by strips or tiles.
    chunks = (1,) * (len(layout.disk_shape) - 2) + (page.chunks[:2] if plain is None else (1, layout.disk_shape[-1]))
    size = voxel_size_nm or _imagej_size(file) or _ome_size(file)
    meta: VolumeMeta = meta_of(uri, layout, series.dtype, chunks, None, size)
    return TiffVolume(path, order, plain, meta, layout)


def _layout(uri: str, series: tifffile.TiffPageSeries, axes: str | None) -> tuple[tuple[int, ...], Layout]:
    """Give the order in which axes of the file are presented, and the layout in that order."""
    named = series.axes.upper().translate(_NAMES)
    if len(set(named)) != len(named) or not set(named) <= set("TCZYX"):
        raise VolumeError(
            f"{uri}: has axes {series.axes} of shape {series.shape}; expected Z, Y, X and C or T at most. Save "
            "one stack of slices (Z, Y, X), or channels of it (C, Z, Y, X)."
        )
    order = tuple(sorted(range(len(named)), key=lambda place: "TCZYX".index(named[place])))
    shape = [series.shape[place] for place in order]
    return order, layout_of(uri, shape, axes or "".join(named[place] for place in order).lower())


def _imagej_size(file: tifffile.TiffFile) -> VoxelSize | None:
    found, tags = file.imagej_metadata or {}, file.pages.first.tags
    nm = _NM.get(str(found.get("unit", "")).strip().lower())
    if nm is None or not {"XResolution", "YResolution"} <= {tag.name for tag in tags}:
        return None
    (ny, dy), (nx, dx) = (tags[f"{axis}Resolution"].value for axis in "YX")
    # Pixels for each unit, as a fraction; ImageJ leaves a spacing of one unit out.
    return voxel_size_of([nm * found.get("spacing", 1.0), nm * dy / ny if ny else 0, nm * dx / nx if nx else 0])


def _ome_pixels(file: tifffile.TiffFile) -> ElementTree.Element | None:
    try:
        described = ElementTree.fromstring(file.ome_metadata or "<none/>")
    except ElementTree.ParseError:  # tifffile, too, goes on without
        return None
    return next((node for node in described.iter() if node.tag.endswith("}Pixels")), None)


def _ome_images(file: tifffile.TiffFile) -> int:
    pixels = _ome_pixels(file)
    if pixels is None:
        return 1
    # Of a colour image the channels are samples of one plane.
    planes = sum(node.tag.endswith("}Channel") for node in pixels) or int(pixels.get("SizeC", 1))
    return int(pixels.get("SizeZ", 1)) * planes * int(pixels.get("SizeT", 1))


def _ome_size(file: tifffile.TiffFile) -> VoxelSize | None:
    pixels = _ome_pixels(file)
    if pixels is None:
        return None
    units = [_NM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm").lower()) for axis in "ZYX"]
    sizes = [pixels.get(f"PhysicalSize{axis}") for axis in "ZYX"]
    if sizes[0] is None and pixels.get("SizeZ") == "1":
        # One image: of its thickness nothing depends.
        sizes[0], units[0] = sizes[1], units[1]
    return voxel_size_of([float(s) * u if s and u else 0 for s, u in zip(sizes, units, strict=True)])
