"""Where a volume is to be segmented: a mask at its resolution, or a whole number of times coarser."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.errors import VolumeError
from spoco_blocks.grid import Box, Triple, triple
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.sources import id_source, open_source
from spoco_blocks.volumes import Volume


@dataclass(frozen=True)
class Mask:
    """A mask that is read as if it had the voxels of the raw data.

    Attributes
    ----------
    source : Source
        The stored mask, non-zero = segment.
    factor : tuple of int
        Voxels of the raw data (z, y, x) that one of its voxels covers.
    """

    source: Source
    factor: Triple

    def read(self, box: Box) -> NDArray[np.bool_]:
        """Read a box of the raw data: (z, y, x) bool, True = segment."""
        start = triple(a // f for a, f in zip(box.start, self.factor, strict=True))
        stop = triple(-(-b // f) for b, f in zip(box.stop, self.factor, strict=True))
        mask: NDArray[np.bool_] = np.asarray(open_source(self.source).read(Box(start, stop)) != 0)
        for axis, factor in enumerate(self.factor):
            mask = mask.repeat(factor, axis)
        corner = tuple(
            slice(a - s * f, b - s * f) for a, b, s, f in zip(box.start, box.stop, start, self.factor, strict=True)
        )
        return mask[corner]


def open_mask(source: Source, raw: Volume) -> Mask:
    """Open a mask and find out how much coarser than the raw data it is.

    Raises
    ------
    VolumeError
        When it has channels, or does not cover the raw data by whole numbers of voxels.
    """
    axes = source.axes or ("nyx" if raw.meta.independent_images else None)
    named = id_source(source).model_copy(update={"axes": axes})
    meta = open_source(named).meta
    factor = triple(ceil(r / m) for r, m in zip(raw.meta.shape, meta.shape, strict=True))
    covered = triple(ceil(r / f) for r, f in zip(raw.meta.shape, factor, strict=True))
    if meta.channels is not None or covered != meta.shape or (raw.meta.independent_images and factor[0] > 1):
        raise VolumeError(
            f"mask {source.uri} has shape {meta.shape}{' and channels' if meta.channels else ''}, raw {raw.uri} has "
            f"{raw.meta.shape} (z, y, x); expected one array of that shape, or of a shape a whole number of times "
            "smaller along each axis (rounded up). Check `level` and `downscale` of each."
        )
    return Mask(named, factor)
