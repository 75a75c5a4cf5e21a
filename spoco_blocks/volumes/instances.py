"""Label ids of a box, as unsigned integers that mean one object each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.errors import VolumeError
from spoco_blocks.grid import Box
from spoco_blocks.volumes.protocol import Volume

_IMAGE_SHIFT = 32


def read_instances(volume: Volume, box: Box) -> NDArray[np.uint64]:
    """Read the label ids of a box.

    Independent images repeat their ids; those of image n (counted from 0 in the volume) are made unique by adding
    ``(n + 1) << 32``. Background stays 0.

    Parameters
    ----------
    volume : Volume
        Labels without channels: unsigned, or other numbers of which none is negative or broken.
    box : Box
        Where, inside the volume.

    Returns
    -------
    ndarray of uint64, shape (z, y, x)
        Ids, 0 for background.

    Raises
    ------
    VolumeError
        When the volume has channels, or its values cannot be ids.
    """
    ids = read_ids(volume, box)
    if not volume.meta.independent_images or not ids.size:
        return ids
    if int(ids.max()) >= 1 << _IMAGE_SHIFT:
        raise VolumeError(
            f"{volume.uri}: ids of independent images must be below 2**{_IMAGE_SHIFT}; got {ids.max()} in {box}. "
            "Number the objects of each image from 1."
        )
    images = np.arange(box.start[0] + 1, box.stop[0] + 1, dtype=np.uint64) << np.uint64(_IMAGE_SHIFT)
    return np.where(ids > 0, ids + images[:, None, None], np.uint64(0))


def read_ids(volume: Volume, box: Box) -> NDArray[np.uint64]:
    """Read the label ids of a box as they are stored: (z, y, x) uint64; those of independent images repeat.

    Raises
    ------
    VolumeError
        When the volume has channels, or its values cannot be ids.
    """
    if volume.meta.channels is not None:
        raise VolumeError(f"{volume.uri}: labels have no channels; got {volume.meta.channels}. Is this the raw volume?")
    voxels = volume.read(box)
    if voxels.dtype.kind == "f" and not np.all(np.isfinite(voxels) & (voxels == np.floor(voxels)) & (voxels < 2**53)):
        raise VolumeError(
            f"{volume.uri}: labels must be whole numbers; got fractions in {box}. Is this the raw volume?"
        )
    if voxels.dtype.kind in "if" and voxels.size and voxels.min() < 0:
        raise VolumeError(
            f"{volume.uri}: labels must not be negative; got {voxels.min()} in {box}. Store voxels to ignore as 0."
        )
    return voxels.astype(np.uint64, copy=False)
