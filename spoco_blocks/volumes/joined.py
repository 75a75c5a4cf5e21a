"""Several label volumes of the same voxels, read as one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.errors import VolumeError
from spoco_blocks.grid import Box
from spoco_blocks.volumes.instances import read_ids
from spoco_blocks.volumes.protocol import Volume, VolumeMeta, Voxels


@dataclass(frozen=True)
class JoinedLabels:
    """Label volumes of which the first that is not 0 decides a voxel.

    Object ``i`` of the volume at place ``p`` (from 0) of ``k`` becomes ``i * k + p``: ids never collide, and the same
    object has the same id in every box.

    Attributes
    ----------
    sources : tuple of Volume
        Labels of one shape, the most trusted first.
    """

    sources: tuple[Volume, ...]

    @property
    def uri(self) -> str:
        """All places, for messages; not to be opened."""
        return " + ".join(source.uri for source in self.sources)

    @property
    def meta(self) -> VolumeMeta:
        """As of the first, with ids of 64 bits."""
        return replace(self.sources[0].meta, dtype=np.dtype(np.uint64))

    def read(self, box: Box) -> Voxels:
        """Read a box: (z, y, x) uint64.

        Raises
        ------
        VolumeError
            When a volume holds no ids, or one too large to be made unique.
        """
        joined: NDArray[np.uint64] = np.zeros(box.shape, np.uint64)
        count = len(self.sources)
        for place, source in enumerate(self.sources):
            ids = read_ids(source, box)
            largest = (np.iinfo(np.uint64).max - place) // count
            if ids.size and int(ids.max()) > largest:
                raise VolumeError(
                    f"{source.uri}: ids of one of {count} joined label volumes must not exceed {largest}; got "
                    f"{ids.max()} in {box}. Number its objects anew."
                )
            fills = (joined == 0) & (ids > 0)
            joined[fills] = ids[fills] * np.uint64(count) + np.uint64(place)
        return joined

    def write(self, box: Box, voxels: Voxels) -> None:
        """Refuse.

        Raises
        ------
        VolumeError
            Always: which of the volumes should hold it?
        """
        raise VolumeError(f"{self.uri} are joined for reading only; write {voxels.shape} at {box} to one of them.")
