"""Intensity normalisation, decided once per volume: a patch or block never normalises itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOW_PERCENTILE, HIGH_PERCENTILE, HIGHEST_PERCENTILE = 1.0, 99.0, 99.8
# Where few voxels are bright, they are the objects: the bright end is at least this part of the way to the highest.
LEAST_PART = 1 / 3


def intensity_range(values: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the dark and the bright end of each channel.

    Parameters
    ----------
    values : ndarray, shape (c, n)
        Intensities of each channel.

    Returns
    -------
    low, high : ndarray of float64, shape (c,)
        The ends.

    Notes
    -----
    A bright speck of some thousandths of the volume must not squeeze everything else into a small part of the range,
    where noise of training drowns it; nor may sparse objects lie far outside of the range.
    """
    low, high, highest = np.percentile(values, [LOW_PERCENTILE, HIGH_PERCENTILE, HIGHEST_PERCENTILE], axis=1)
    return low, np.maximum(high, low + LEAST_PART * (highest - low))


@dataclass(frozen=True)
class Normalisation:
    """Maps a volume's robust intensity range to [-1, 3]; what is brighter keeps its distances up to 11.

    Attributes
    ----------
    low, high : tuple of float
        Intensities at the dark and the bright end, for each channel.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __call__(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """Normalise (z, y, x) or (c, z, y, x) to (c, z, y, x) float32; far outliers are clipped."""
        channels = raw.astype(np.float32).reshape(len(self.low), *raw.shape[-3:])
        low = np.array(self.low, np.float32)[:, None, None, None]
        span = np.maximum(np.array(self.high, np.float32)[:, None, None, None] - low, 1e-6)
        return np.asarray(np.clip((channels - low) / span * 4 - 1, -3, 11), np.float32)
