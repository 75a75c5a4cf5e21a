"""What every stored volume can do, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.grid import Box, Triple

Voxels = NDArray[Any]


@dataclass(frozen=True)
class VolumeMeta:
    """What is known of a volume without reading a voxel.

    Attributes
    ----------
    shape : tuple of int
        Extent along z, y, x; a 2D image has z = 1. Where the axes hold n, the first entry counts independent
        images.
    dtype : numpy.dtype
        Data type of the voxels.
    axes : str
        "zyx", "czyx", or "nyx", "cnyx" (independent 2D images, never stitched across).
    channels : int or None
        Number of channels; None when the array has no channel axis.
    voxel_size_nm : tuple of float or None
        Extent of a voxel along z, y, x in nm; None when the store does not say.
    chunk_shape : tuple of int
        Smallest unit of reading along z, y, x.
    shard_shape : tuple of int
        Smallest unit of writing along z, y, x; equals `chunk_shape` where the format knows no shards.
    """

    shape: Triple
    dtype: np.dtype[Any]
    axes: str
    channels: int | None
    voxel_size_nm: tuple[float, float, float] | None
    chunk_shape: Triple
    shard_shape: Triple

    @property
    def independent_images(self) -> bool:
        """Whether the first axis counts images that have nothing to do with each other."""
        return "n" in self.axes


class Volume(Protocol):
    """A stored array, read and written by boxes."""

    @property
    def uri(self) -> str:
        """Where it is stored; opening this again gives the same volume."""

    @property
    def meta(self) -> VolumeMeta:
        """What is known without reading."""

    def read(self, box: Box) -> Voxels:
        """Read a box: (z, y, x), or (c, z, y, x) when there are channels."""

    def write(self, box: Box, voxels: Voxels) -> None:
        """Write a box, shaped as `read` gives it."""
