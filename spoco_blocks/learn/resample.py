"""Between the voxels of a store and those of a model: where boxes lie, and how crops are resampled.

Both frames start at the volume's first corner; ``zoom`` counts model voxels per stored voxel along an axis. A model
voxel's value depends on the volume alone, never on the box it is read in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.grid import Box, Triple, triple

Sizes = tuple[float, float, float]

# Voxel sizes this near are the same: less than one voxel of drift across a patch.
SAME_SIZE = 0.01
# Voxels; far above the rounding of positions, far below anything that matters.
TINY = 1e-6


def zoom_between(stored_nm: Sizes, model_nm: Sizes, planar: bool) -> Sizes:
    """Give the zoom from a store's voxel size to a model's.

    Parameters
    ----------
    stored_nm, model_nm : tuple of float
        Voxel sizes along z, y, x, in nm.
    planar : bool
        Whether the first axis counts independent images; it is never resampled then.

    Returns
    -------
    tuple of float
        Model voxels per stored voxel; exactly 1 where the sizes agree within 1 %.
    """
    ratios = [stored / model for stored, model in zip(stored_nm, model_nm, strict=True)]
    z, y, x = (1.0 if abs(ratio - 1) <= SAME_SIZE else ratio for ratio in ratios)
    return (1.0 if planar else z), y, x


@dataclass(frozen=True)
class Resampling:
    """A zoom, and the stored voxels that may be looked at.

    Attributes
    ----------
    zoom : tuple of float
        Model voxels per stored voxel along z, y, x.
    within : Box
        Stored voxels that exist for the model; beyond, the nearest of them is repeated.

    Notes
    -----
    An axis that shrinks takes the mean over each model voxel's extent, which keeps noise and thin structures from
    aliasing; one that grows is interpolated linearly. Both are the same at a zoom of 1. Cost: 1 / zoom + 2 passes over
    the crop for each axis.
    """

    zoom: Sizes
    within: Box

    @property
    def trivial(self) -> bool:
        """Whether both frames are the same."""
        return self.zoom == (1.0, 1.0, 1.0)

    def inside(self, stored: Box) -> Box:
        """Give the model voxels that lie wholly inside a box of stored ones; an empty box where there are none."""
        start = [int(np.ceil(a * z - TINY)) for a, z in zip(stored.start, self.zoom, strict=True)]
        stop = [int(np.floor(b * z + TINY)) for b, z in zip(stored.stop, self.zoom, strict=True)]
        return Box(triple(start), triple(max(a, b) for a, b in zip(start, stop, strict=True)))

    def positions(self, stored: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give the model voxels in which the centres of stored voxels (n, 3) lie."""
        return np.asarray(np.floor((stored + 0.5) * np.array(self.zoom)), np.int64)

    def lengths(self, model_voxels: Triple) -> Triple:
        """Give lengths in stored voxels, rounded up."""
        return triple(np.ceil(n / z - TINY) for n, z in zip(model_voxels, self.zoom, strict=True))

    def stored(self, box: Box) -> Box:
        """Give the stored voxels that a box of the model's voxels is made from."""
        used = [self._taps(axis, box)[0] for axis in range(3)]
        return Box(triple(index.min() for index in used), triple(index.max() + 1 for index in used))

    def raw(self, raw: NDArray[np.float32], box: Box) -> NDArray[np.float32]:
        """Resample raw data.

        Parameters
        ----------
        raw : ndarray of float32, shape (c, z, y, x)
            What `stored(box)` holds.
        box : Box
            In the model's voxels.

        Returns
        -------
        ndarray of float32, shape (c, z, y, x)
            As large as the box.
        """
        for axis, zoom in enumerate(self.zoom):
            if zoom == 1:
                continue
            index, weight = self._taps(axis, box)
            index = index - index.min()
            total = np.zeros((*raw.shape[: axis + 1], len(index), *raw.shape[axis + 2 :]), np.float32)
            for tap in range(index.shape[1]):
                along = np.expand_dims(weight[:, tap], [a for a in range(4) if a != axis + 1])
                total += raw.take(index[:, tap], axis + 1) * along
            raw = total
        return raw

    def labels(self, labels: NDArray[Any], box: Box) -> NDArray[Any]:
        """Take for each model voxel the label at its centre from labels (z, y, x) of `stored(box)`."""
        origin = self.stored(box).start
        picked = [
            np.floor((np.arange(a, b) + 0.5) / zoom + TINY).astype(np.int64).clip(low, high - 1) - first
            for a, b, zoom, low, high, first in zip(
                box.start, box.stop, self.zoom, self.within.start, self.within.stop, origin, strict=True
            )
        ]
        return labels[np.ix_(*picked)]

    def _taps(self, axis: int, box: Box) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Give for each model voxel of the box the stored voxels it is made from and their weights, both (n, k)."""
        voxels, zoom = np.arange(box.start[axis], box.stop[axis], dtype=np.float64)[:, None], self.zoom[axis]
        if zoom < 1:
            begin, end = voxels / zoom, (voxels + 1) / zoom
            index = np.floor(begin + TINY) + np.arange(int(np.ceil(1 / zoom)) + 1)
            weight = (np.minimum(index + 1, end) - np.maximum(index, begin)).clip(min=0)
        else:
            centre = (voxels + 0.5) / zoom - 0.5
            index = np.floor(centre + TINY) + np.arange(2)
            weight = (1 - np.abs(index - centre)).clip(min=0)
        weight[weight < TINY] = 0
        # Without weight a voxel is not read: it may lie in a chunk of its own.
        index = np.where(weight > 0, index, index[:, :1]).astype(np.int64)
        weight /= weight.sum(1, keepdims=True)
        return index.clip(self.within.start[axis], self.within.stop[axis] - 1), weight.astype(np.float32)
