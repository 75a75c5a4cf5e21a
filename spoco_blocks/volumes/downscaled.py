"""A stored volume seen at a coarser scale, made while it is read."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from spoco_blocks.errors import VolumeError
from spoco_blocks.grid import Box, Triple, triple
from spoco_blocks.kernels.downsample import downsample_mean, downsample_mode
from spoco_blocks.volumes.instances import read_ids
from spoco_blocks.volumes.protocol import Volume, VolumeMeta, Voxels

SLAB_VOXELS = 2**23


@dataclass(frozen=True)
class Downscaled:
    """Another volume in windows of several voxels: the mean of an image, the most frequent id of labels.

    Attributes
    ----------
    source : Volume
        What is stored.
    factor : tuple of int
        Voxels per window along z, y, x.
    ids : bool
        Whether it holds ids.

    Raises
    ------
    VolumeError
        When independent images would be mixed.
    """

    source: Volume
    factor: Triple
    ids: bool

    def __post_init__(self) -> None:
        if self.source.meta.independent_images and self.factor[0] != 1:
            raise VolumeError(
                f"{self.source.uri} holds independent images along its first axis, which must not be averaged; got "
                f"downscale {self.factor}, expected [1, y, x]."
            )

    @property
    def uri(self) -> str:
        """Where it is stored, at full resolution."""
        return self.source.uri

    @property
    def meta(self) -> VolumeMeta:
        """As stored, with larger voxels."""
        meta, sizes = self.source.meta, self.source.meta.voxel_size_nm
        if sizes is not None:
            z, y, x = (size * f for size, f in zip(sizes, self.factor, strict=True))
            sizes = (z, y, x)
        return replace(
            meta,
            shape=triple(-(-s // f) for s, f in zip(meta.shape, self.factor, strict=True)),
            dtype=np.dtype(np.uint64) if self.ids else meta.dtype,
            voxel_size_nm=sizes,
            chunk_shape=triple(max(1, c // f) for c, f in zip(meta.chunk_shape, self.factor, strict=True)),
            shard_shape=triple(max(1, c // f) for c, f in zip(meta.shard_shape, self.factor, strict=True)),
        )

    def read(self, box: Box) -> Voxels:
        """Read a box: (z, y, x), or (c, z, y, x) when there are channels."""
        stored = Box(
            triple(a * f for a, f in zip(box.start, self.factor, strict=True)),
            triple(b * f for b, f in zip(box.stop, self.factor, strict=True)),
        ).intersection(Box.of_shape(self.source.meta.shape))
        # In slabs: what is stored is finer by the product of the factors.
        rows = max(1, SLAB_VOXELS // (self.factor[0] * stored.shape[1] * stored.shape[2])) * self.factor[0]
        (z0, y0, x0), (z1, y1, x1) = stored.start, stored.stop
        slabs = [self._coarse(Box((z, y0, x0), (min(z + rows, z1), y1, x1))) for z in range(z0, z1, rows)]
        return np.concatenate(slabs, -3)

    def _coarse(self, stored: Box) -> Voxels:
        if self.ids:
            return downsample_mode(read_ids(self.source, stored), self.factor)
        return downsample_mean(self.source.read(stored), self.factor)

    def write(self, box: Box, voxels: Voxels) -> None:
        """Refuse.

        Raises
        ------
        VolumeError
            Always: what is stored is finer.
        """
        raise VolumeError(f"{self.uri} is read at a coarser scale only; {voxels.shape} at {box} cannot be written.")
