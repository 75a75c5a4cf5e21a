"""Image files as one volume of independent images. A format of folders says which files, and what they hold."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import DTypeLike
from PIL import Image

from spoco_blocks.errors import VolumeError
from spoco_blocks.grid import Triple
from spoco_blocks.kernels.downsample import downsample_mean, downsample_mode
from spoco_blocks.volumes.layout import Index, Layout, StoredVolume, VoxelSize, meta_of
from spoco_blocks.volumes.protocol import Voxels

Size = tuple[int, int]

# Decoded images kept by a process: tiles of one image are read one after the other.
_DECODED_IMAGES = 16
# How Pillow names images of one number per pixel; a palette's indices are the ids, its colours mean nothing.
_ID_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")


@dataclass(frozen=True)
class Content:
    """What the files of a stack hold, and how one becomes an array.

    Attributes
    ----------
    decode : callable
        Path → voxels (c, y, x); the same for equal paths, and equal to itself in another process.
    dtype : numpy.dtype
        Of the volume.
    channels : int or None
        Number of channels; None for ids and masks.
    outside : int
        Value of the voxels beyond an image's own size.
    coarsen : callable
        How windows of voxels become one.
    """

    decode: Callable[[Path], Voxels]
    dtype: DTypeLike
    channels: int | None = None
    outside: int = 0
    coarsen: Callable[[Voxels, Triple], Voxels] = downsample_mode


class ImageStack(StoredVolume):
    """Files of images, one after the other along n; smaller ones are padded at their far ends to the largest."""

    def __init__(
        self,
        uri: str,
        paths: Sequence[Path],
        sizes: Sequence[Size],
        content: Content,
        voxel_size_nm: VoxelSize | None,
        downscale: int = 1,
    ) -> None:
        largest = tuple(-(-max(extents) // downscale) for extents in zip(*sizes, strict=True))
        channels = () if content.channels is None else (content.channels,)
        layout = Layout("cnyx" if channels else "nyx", (*channels, len(paths), *largest))
        chunks = (*channels, 1, *largest)
        if voxel_size_nm is not None:
            n, y, x = voxel_size_nm
            voxel_size_nm = n, y * downscale, x * downscale
        super().__init__(uri, meta_of(uri, layout, content.dtype, chunks, None, voxel_size_nm), layout)
        self._paths, self._content, self._downscale = tuple(paths), content, downscale

    def _read(self, index: Index) -> Voxels:
        *_, images, rows, columns = index
        extents = tuple(part.stop - part.start for part in index)
        voxels = np.full(extents, self._content.outside, self._meta.dtype)
        for place, path in enumerate(self._paths[images]):
            image = _decoded(self._content, path, self._downscale, path.stat().st_mtime_ns)[:, rows, columns]
            _, height, width = image.shape
            voxels.reshape(-1, *extents[-3:])[:, place, :height, :width] = image
        return voxels

    def _write(self, index: Index, voxels: Voxels) -> None:
        raise VolumeError(f"{self.uri}: image files are read only here; write to a Zarr volume instead (create_zarr).")


@lru_cache(maxsize=_DECODED_IMAGES)
def _decoded(content: Content, path: Path, downscale: int, modified: int) -> Voxels:
    """Decode a file once; `modified` is its time, so that an edited file is decoded anew."""
    voxels = content.decode(path)
    return voxels if downscale == 1 else content.coarsen(voxels, (1, downscale, downscale))


def read_rgb(path: Path) -> Voxels:
    """Read a colour image as (3, y, x) uint8; transparency is dropped."""
    with _opened(path) as image:
        return np.ascontiguousarray(np.moveaxis(np.asarray(image.convert("RGB")), -1, 0))


def read_ids(path: Path) -> Voxels:
    """Read one number per pixel as (1, y, x) uint32, of a palette image the indices.

    Raises
    ------
    VolumeError
        When the file holds colours, or is no image.
    """
    with _opened(path) as image:
        if image.mode not in _ID_MODES:
            raise VolumeError(
                f"{path}: holds {image.mode} pixels; expected one number per pixel (8 or 16 bits, or a palette), the "
                "id of an object. Store the ids instead of their colours."
            )
        return np.asarray(image).astype(np.uint32)[None]


def read_inside(path: Path) -> Voxels:
    """Give 0 for every pixel of an image, (1, y, x) uint8: the mask of what is outside of it."""
    return np.zeros((1, *size_of(path)), np.uint8)


RGB = Content(read_rgb, "uint8", channels=3, coarsen=downsample_mean)
IDS = Content(read_ids, "uint32")
PADDING = Content(read_inside, "uint8", outside=1)


def size_of(path: Path) -> Size:
    """Give an image's height and width; reads no pixel."""
    with _opened(path) as image:
        return image.height, image.width


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise VolumeError(f"{path}: is missing; copy it again.") from None
    except OSError as error:
        raise VolumeError(f"{path}: cannot be read as an image ({error}); copy it again.") from error


def split_query(uri: str, known: Sequence[str]) -> tuple[str, dict[str, str], int]:
    """Take ``PLACE?key=value&downscale=2`` apart: place, options, and how many pixels a side become one.

    Raises
    ------
    VolumeError
        When an option is not known, or `downscale` is no number from 1 up.
    """
    place, _, query = uri.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    factor = options.pop("downscale", "1")
    unknown = sorted(set(options) - set(known))
    if unknown:
        expected = ", ".join([*(f"{key}=..." for key in known), "downscale=..."])
        raise VolumeError(f"{uri}: does not understand '{query}'; expected {expected}, joined by &.")
    if not factor.isdecimal() or int(factor) < 1:
        raise VolumeError(f"{uri}: downscale must be a number from 1 up; got '{factor}'.")
    return place, options, int(factor)


def check_opening(uri: str, level: int, axes: str | None, content: Content) -> None:
    """Refuse levels and axes that a folder of images does not have.

    Raises
    ------
    VolumeError
        When there are such.
    """
    own = "nyx" if content.channels is None else "cnyx"
    if level:
        raise VolumeError(f"{uri}: a folder of images has level 0 only; got level {level}. Use ?downscale=... instead.")
    if axes not in {None, own}:
        raise VolumeError(f'{uri}: has axes "{own}"; got "{axes}". Leave the axes out.')


def listed(names: Sequence[str | os.PathLike[str]], most: int = 3) -> str:
    """Name a few of many, for a message."""
    shown = ", ".join(map(str, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
