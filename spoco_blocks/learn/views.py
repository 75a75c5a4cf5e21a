"""Views of a patch: geometry is shared by both networks and the labels, intensity changes are drawn for each."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Voxels = NDArray[Any]


def turn(
    raw: Voxels, labels: Voxels, isotropic: tuple[bool, bool, bool], rng: np.random.Generator
) -> tuple[Voxels, Voxels]:
    """Flip along random axes and rotate by quarter turns in the planes whose voxels are square.

    Parameters
    ----------
    raw : (c, z, y, x) float32
        Raw data.
    labels : (z, y, x) int32
        Labels.
    isotropic : tuple of bool
        Axes that share the finest voxel size; only these are exchanged.
    rng : numpy.random.Generator
        Where the choice is drawn from.
    """
    flips = tuple(axis for axis in range(3) if rng.random() < 0.5)
    raw, labels = np.flip(raw, tuple(axis + 1 for axis in flips)), np.flip(labels, flips)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        quarter_turns = int(rng.integers(4))
        square = labels.shape[first] == labels.shape[second]
        if isotropic[first] and isotropic[second]:
            quarter_turns = quarter_turns if square else quarter_turns // 2 * 2
            raw = np.rot90(raw, quarter_turns, (first + 1, second + 1))
            labels = np.rot90(labels, quarter_turns, (first, second))
    # Not ascontiguousarray: it keeps the negative stride of a flipped axis of length 1, which torch refuses.
    return raw.copy(), labels.copy()


def change_intensity(raw: Tensor, rng: np.random.Generator, generator: torch.Generator) -> Tensor:
    """Draw gain, offset, and sometimes noise or blur for normalised raw data (c, z, y, x)."""
    changed = raw * float(rng.uniform(0.75, 1.25)) + float(rng.uniform(-0.3, 0.3))
    if rng.random() < 0.15:
        changed = _blur(changed)
    if rng.random() < 0.5:
        noise = torch.randn(raw.shape, generator=generator).to(raw.device)
        changed = changed + float(rng.uniform(0.0, 0.3)) * noise
    return changed


def _blur(raw: Tensor) -> Tensor:
    """Average over 3 x 3 in the plane."""
    padded = functional.pad(raw[:, None], (1, 1, 1, 1, 0, 0), mode="replicate")
    return functional.avg_pool3d(padded, (1, 3, 3), stride=1)[:, 0]
