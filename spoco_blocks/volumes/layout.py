"""How an array on disk is presented as z, y, x (or c, z, y, x), and what all stored volumes have in common."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spoco_blocks.errors import VolumeError
from spoco_blocks.grid import Box, Triple
from spoco_blocks.volumes.protocol import VolumeMeta, Voxels

Index = tuple[slice, ...]
VoxelSize = tuple[float, float, float]

_DEFAULT_AXES = {2: "yx", 3: "zyx", 4: "czyx", 5: "tczyx"}


@dataclass(frozen=True)
class Layout:
    """Axes and shape of an array on disk.

    Axes keep their order, so that reading and presenting differ by axes of length 1 only: t is dropped (it must have
    length 1), a missing z becomes z = 1, and a channel axis of length 1 is dropped.
    """

    disk_axes: str
    disk_shape: tuple[int, ...]

    @property
    def channels(self) -> int | None:
        """Number of channels; None when there is one or no channel axis."""
        extent = self._extent("c", self.disk_shape)
        return extent if extent > 1 else None

    @property
    def axes(self) -> str:
        """Axes as presented: "zyx" or "nyx", after a "c" where there are channels."""
        return ("c" if self.channels else "") + ("nyx" if "n" in self.disk_axes else "zyx")

    def _extent(self, axis: str, disk: Sequence[int]) -> int:
        return int(disk[self.disk_axes.index(axis)]) if axis in self.disk_axes else 1

    def spatial(self, disk: Sequence[int]) -> Triple:
        """Pick z (or n), y, x from one number per axis on disk."""
        return self._extent("n" if "n" in self.disk_axes else "z", disk), *(self._extent(a, disk) for a in "yx")  # type: ignore[return-value]

    def index(self, box: Box) -> Index:
        """Give the index into the array on disk for a box."""
        slices = dict(zip("zyx", box.slices, strict=True))
        slices["n"] = slices["z"]
        whole = dict(zip(self.disk_axes, self.disk_shape, strict=True))
        return tuple(slices.get(a, slice(0, whole[a])) for a in self.disk_axes)

    def disk_extents(self, box: Box) -> tuple[int, ...]:
        """Shape of a box on disk."""
        return tuple(s.stop - s.start for s in self.index(box))


def layout_of(uri: str, shape: Sequence[int], axes: str | None = None) -> Layout:
    """Decide the layout of an array, from its number of axes where ``axes`` is not given.

    Raises
    ------
    VolumeError
        When the axes are not among those we can present, do not fit the array, or the array is empty.
    """
    shape = tuple(int(s) for s in shape)
    expected = 'axes must be "yx", "zyx", "czyx", "tczyx" (or these without some of t, c, z), "nyx" or "cnyx"'
    chosen = _DEFAULT_AXES.get(len(shape)) if axes is None else axes
    if chosen is None or not re.fullmatch(r"t?c?z?yx|c?nyx", chosen):
        raise VolumeError(f"{uri}: cannot read axes {axes!r} of an array of shape {shape}; {expected}.")
    if len(chosen) != len(shape):
        raise VolumeError(
            f'{uri}: axes "{chosen}" name {len(chosen)} axes, but the array has shape {shape}; {expected}.'
        )
    if "t" in chosen and shape[0] != 1:
        raise VolumeError(f"{uri}: holds {shape[0]} time points (shape {shape}); expected one. Store each as a volume.")
    if 0 in shape:
        raise VolumeError(f"{uri}: is empty, shape {shape}; expected at least one voxel.")
    return Layout(chosen, shape)


def meta_of(
    uri: str,
    layout: Layout,
    dtype: Any,
    chunks: Sequence[int],
    shards: Sequence[int] | None,
    voxel_size_nm: VoxelSize | None,
) -> VolumeMeta:
    """Describe an array on disk.

    Raises
    ------
    VolumeError
        When the data type is not a number.
    """
    native = np.dtype(dtype).newbyteorder("=")
    if native.kind not in "biuf":
        raise VolumeError(f"{uri}: holds {native}; expected integers or floats.")
    return VolumeMeta(
        shape=layout.spatial(layout.disk_shape),
        dtype=native,
        axes=layout.axes,
        channels=layout.channels,
        voxel_size_nm=voxel_size_nm,
        chunk_shape=layout.spatial(chunks),
        shard_shape=layout.spatial(shards or chunks),
    )


def voxel_size_of(value: object) -> VoxelSize | None:
    """Give the voxel size in nm along z, y, x that an attribute holds; None unless it is three positive numbers."""
    try:
        sizes = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if sizes.shape != (3,) or not np.all(np.isfinite(sizes) & (sizes > 0)):
        return None
    return float(sizes[0]), float(sizes[1]), float(sizes[2])


class StoredVolume(ABC):
    """Reading and writing by boxes, with all checks; a format adds how voxels reach the disk."""

    def __init__(self, uri: str, meta: VolumeMeta, layout: Layout) -> None:
        self._uri = uri
        self._meta = meta
        self._layout = layout

    @property
    def uri(self) -> str:
        """Where it is stored."""
        return self._uri

    @property
    def meta(self) -> VolumeMeta:
        """What is known without reading."""
        return self._meta

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._uri!r}, {self._meta.axes}, {self._meta.shape}, {self._meta.dtype})"

    @abstractmethod
    def _read(self, index: Index) -> Voxels:
        """Read by an index into the array on disk."""

    @abstractmethod
    def _write(self, index: Index, voxels: Voxels) -> None:
        """Write by an index into the array on disk."""

    def _presented_shape(self, box: Box) -> tuple[int, ...]:
        whole = Box.of_shape(self._meta.shape)
        if not whole.contains(box):
            raise VolumeError(f"{self._uri}: box {box} lies outside the volume {whole}; clip it first.")
        return box.shape if self._meta.channels is None else (self._meta.channels, *box.shape)

    def read(self, box: Box) -> Voxels:
        """Read a box.

        Parameters
        ----------
        box : Box
            Where, inside the volume.

        Returns
        -------
        ndarray, shape (z, y, x) or (c, z, y, x)
            Voxels in C order and native byte order.

        Raises
        ------
        VolumeError
            When the box sticks out of the volume.
        """
        shape = self._presented_shape(box)
        return np.ascontiguousarray(self._read(self._layout.index(box)), dtype=self._meta.dtype).reshape(shape)

    def write(self, box: Box, voxels: Voxels) -> None:
        """Write a box.

        Parameters
        ----------
        box : Box
            Where, inside the volume; whole shards where several processes write.
        voxels : ndarray, shape (z, y, x) or (c, z, y, x)
            What, in the data type of the volume.

        Raises
        ------
        VolumeError
            When the box sticks out of the volume, or shape or data type differ from what it holds.
        """
        shape = self._presented_shape(box)
        if voxels.shape != shape:
            raise VolumeError(f"{self._uri}: box {box} takes an array of shape {shape}; got {voxels.shape}.")
        if voxels.dtype != self._meta.dtype:
            raise VolumeError(f"{self._uri}: holds {self._meta.dtype}; got {voxels.dtype}. Convert the array first.")
        self._write(self._layout.index(box), voxels.reshape(self._layout.disk_extents(box)))
