"""Training patches: where they lie and how they are read, a tile at a time."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.errors import LabelsError
from spoco_blocks.grid import BlockGrid, Box, Triple, triple
from spoco_blocks.learn.intensity import Normalisation
from spoco_blocks.learn.supervision import Supervision
from spoco_blocks.volumes import Volume

TILE = 64
CACHE_BYTES = 2**30


@dataclass
class TrainingVolume:
    """Raw data and annotations of one volume, read through a cache of tiles.

    Attributes
    ----------
    raw : Volume
        Raw data.
    normalisation : Normalisation
        Decided once for the volume.
    supervision : Supervision
        Annotations; its region bounds every crop.
    anchors : dict
        For each object some of its voxels, (n, 3) int64, on which crops are centred.
    """

    raw: Volume
    normalisation: Normalisation
    supervision: Supervision
    anchors: dict[int, NDArray[np.int64]]
    _tiles: OrderedDict[int, tuple[NDArray[Any], NDArray[Any]]] = field(default_factory=OrderedDict, repr=False)
    _bytes: int = 0

    def draw(self, shape: Triple, centred: float, rng: np.random.Generator, within: Box) -> Box:
        """Draw a box: with probability `centred` around a voxel of a random object, else anywhere in `within`."""
        start, stop = np.array(within.start), np.array(within.stop)
        last = np.maximum(stop - shape, start)
        if self.anchors and rng.random() < centred:
            voxels = self.anchors[sorted(self.anchors)[int(rng.integers(len(self.anchors)))]]
            middle = voxels[int(rng.integers(len(voxels)))]
            quarter = np.array(shape) // 4
            corner = middle - np.array(shape) // 2 + rng.integers(-quarter, quarter + 1)
        else:
            corner = rng.integers(start, last + 1)
        corner = np.clip(corner, start, last)
        return Box(triple(corner), triple(corner + shape))

    def read(self, box: Box) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Read normalised raw data (c, z, y, x) and labels (z, y, x) of a box inside the region."""
        grid = BlockGrid(self.raw.meta.shape, self._tile_shape())
        raw = np.empty((self.raw.meta.channels or 1, *box.shape), np.float32)
        labels = np.empty(box.shape, np.int32)
        for index in grid.touching(box):
            tile = grid.block(index).inner.intersection(self.supervision.region)
            tile_raw, tile_labels = self._tile(index, tile)
            common = tile.intersection(box)
            here, there = common.relative_to(box.start).slices, common.relative_to(tile.start).slices
            raw[(slice(None), *here)] = tile_raw[(slice(None), *there)]
            labels[here] = tile_labels[there]
        return raw, labels

    def _tile_shape(self) -> Triple:
        return (1, TILE * 4, TILE * 4) if self.raw.meta.independent_images else (TILE, TILE, TILE)

    def _tile(self, index: int, tile: Box) -> tuple[NDArray[Any], NDArray[Any]]:
        if index in self._tiles:
            self._tiles.move_to_end(index)
            return self._tiles[index]
        pair = self.normalisation(self.raw.read(tile)), self.supervision.read(tile)
        self._tiles[index] = pair
        self._bytes += pair[0].nbytes + pair[1].nbytes
        while self._bytes > CACHE_BYTES and len(self._tiles) > 1:
            _, old = self._tiles.popitem(last=False)
            self._bytes -= old[0].nbytes + old[1].nbytes
        return pair


@dataclass(frozen=True)
class Part:
    """A training volume with the boxes that crops may come from.

    Attributes
    ----------
    volume : TrainingVolume
        Raw data and annotations.
    training : Box
        Where training crops come from.
    validation : Box or None
        Where validation crops come from; None when there are too few objects to spare any.
    isotropic : tuple of bool
        Axes that share the finest voxel size.
    """

    volume: TrainingVolume
    training: Box
    validation: Box | None
    isotropic: tuple[bool, bool, bool]


def fit_patch(shape: Triple, stride: Triple, region: Box) -> Triple:
    """Round a patch to what the network's strides and the annotated region allow.

    Raises
    ------
    LabelsError
        When the region is smaller than one stride.
    """
    fitted = triple(
        min(-(-want // step) * step, extent // step * step)
        for want, step, extent in zip(shape, stride, region.shape, strict=True)
    )
    if min(fitted) < 1:
        raise LabelsError(
            f"the annotated region {region} is smaller than the network's stride {stride}; use fewer levels or a "
            "larger region."
        )
    return fitted


def choose_patch(
    object_length_nm: float, voxel_size_nm: tuple[float, float, float], planar: bool, voxels: int = 48_000
) -> Triple:
    """Choose a patch that holds an object and its neighbours, within a budget of voxels.

    Parameters
    ----------
    object_length_nm : float
        Median length of the objects, in nm.
    voxel_size_nm : tuple of float
        Voxel size along z, y, x in nm.
    planar : bool
        Whether the first axis counts independent images.
    voxels : int
        Voxels in a patch at most.
    """
    edges = np.array([2.5 * object_length_nm / size for size in voxel_size_nm])
    if planar:
        edges[0] = 1
        edges[1:] *= 2
    free = slice(1, None) if planar else slice(None)
    edges[free] = np.maximum(edges[free], 4.0)
    excess = float(np.prod(edges)) / voxels
    if excess > 1:
        edges[free] /= excess ** (1 / (2 if planar else 3))
    return triple(max(1, round(edge)) for edge in edges)
