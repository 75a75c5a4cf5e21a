"""Training patches: where they lie and how they are read, a tile at a time."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.errors import LabelsError
from spoco_blocks.grid import BlockGrid, Box, Triple, triple
from spoco_blocks.learn.intensity import Normalisation
from spoco_blocks.learn.resample import Resampling, Sizes
from spoco_blocks.learn.supervision import Supervision
from spoco_blocks.volumes import Volume

TILE = 64
# Whole chunks are read up to the second number; smaller ones are joined up to the first.
TILE_VOXELS, CHUNK_VOXELS = 2**22, 2**24
CACHE_BYTES = 2**30


@dataclass
class TrainingVolume:
    """Raw data and annotations of one volume in the model's voxels, read through a cache of tiles.

    Attributes
    ----------
    raw : Volume
        Raw data, as stored.
    normalisation : Normalisation
        Decided once for the volume.
    supervision : Supervision
        Annotations, as stored; its region bounds everything that is read.
    anchors : dict
        For each object some of its voxels, (n, 3) int64, on which crops are centred; in the model's voxels.
    images : tuple of int or None
        Of independent images those that crops, of one image each, may come from; None = all.
    zoom : tuple of float
        Model voxels per stored voxel along z, y, x. Boxes that are drawn and read count the model's voxels.
    cache_bytes : int
        Memory for tiles at most. Tiles hold stored voxels, so that no chunk is read for two of them.
    """

    raw: Volume
    normalisation: Normalisation
    supervision: Supervision
    anchors: dict[int, NDArray[np.int64]]
    images: tuple[int, ...] | None = None
    zoom: Sizes = (1.0, 1.0, 1.0)
    cache_bytes: int = CACHE_BYTES
    _tiles: OrderedDict[int, tuple[NDArray[Any], NDArray[Any]]] = field(default_factory=OrderedDict, repr=False)
    _bytes: int = 0

    def __post_init__(self) -> None:
        self._objects = sorted(self.anchors)
        self._grid = BlockGrid(self.raw.meta.shape, tile_shape(self.raw))

    @property
    def resampling(self) -> Resampling:
        """Between stored and model voxels."""
        return Resampling(self.zoom, self.supervision.region)

    @property
    def cached_bytes(self) -> int:
        """Memory that tiles take now."""
        return self._bytes

    def draw(self, shape: Triple, centred: float, rng: np.random.Generator, within: Box) -> Box:
        """Draw a box: with probability `centred` around a voxel of a random object, else anywhere in `within`."""
        start, stop = np.array(within.start), np.array(within.stop)
        last = np.maximum(stop - shape, start)
        if self._objects and rng.random() < centred:
            voxels = self.anchors[self._objects[int(rng.integers(len(self._objects)))]]
            middle = voxels[int(rng.integers(len(voxels)))]
            quarter = np.array(shape) // 4
            corner = middle - np.array(shape) // 2 + rng.integers(-quarter, quarter + 1)
        else:
            corner = rng.integers(start, last + 1)
            if self.images is not None:
                corner[0] = rng.choice([n for n in self.images if start[0] <= n <= last[0]])
        corner = np.clip(corner, start, last)
        return Box(triple(corner), triple(corner + shape))

    def read(self, box: Box) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Read normalised raw data (c, z, y, x) and labels (z, y, x) of a box inside the region."""
        resampling = self.resampling
        if resampling.trivial:
            raw, labels = self._stored(box)
            return self.normalisation(raw), labels
        raw, labels = self._stored(resampling.stored(box))
        return resampling.raw(self.normalisation(raw), box), resampling.labels(labels, box)

    def _stored(self, box: Box) -> tuple[NDArray[Any], NDArray[np.int32]]:
        raw = np.empty((self.raw.meta.channels or 1, *box.shape), self.raw.meta.dtype)
        labels = np.empty(box.shape, np.int32)
        for index in self._grid.touching(box):
            tile = self._grid.block(index).inner.intersection(self.supervision.region)
            tile_raw, tile_labels = self._tile(index, tile)
            common = tile.intersection(box)
            here, there = common.relative_to(box.start).slices, common.relative_to(tile.start).slices
            raw[(slice(None), *here)] = tile_raw[(slice(None), *there)]
            labels[here] = tile_labels[there]
        return raw, labels

    def _tile(self, index: int, tile: Box) -> tuple[NDArray[Any], NDArray[Any]]:
        if index in self._tiles:
            self._tiles.move_to_end(index)
            return self._tiles[index]
        raw = self.raw.read(tile)
        pair = raw.reshape(-1, *tile.shape), self.supervision.read(tile)
        self._tiles[index] = pair
        self._bytes += pair[0].nbytes + pair[1].nbytes
        while self._bytes > self.cache_bytes:
            _, old = self._tiles.popitem(last=False)
            self._bytes -= old[0].nbytes + old[1].nbytes
        return pair


@dataclass(frozen=True)
class Part:
    """A training volume with the boxes that crops may come from, in the model's voxels.

    Attributes
    ----------
    volume : TrainingVolume
        Raw data and annotations.
    training : Box
        Where training crops come from.
    validation : Box or None
        Where validation crops come from; None when there are too few objects to spare any.
    isotropic : tuple of bool
        Axes that share the finest voxel size of the model.
    """

    volume: TrainingVolume
    training: Box
    validation: Box | None
    isotropic: tuple[bool, bool, bool]

    @property
    def zoom(self) -> Sizes:
        """Model voxels per stored voxel along z, y, x."""
        return self.volume.zoom


def tile_shape(raw: Volume) -> Triple:
    """Give the shape of a volume's tiles, in stored voxels: whole chunks, as far as memory allows.

    Chunks of more than 2**24 voxels are cut, and then decoded once for each of their tiles.
    """
    planar = raw.meta.independent_images
    wanted = (1, TILE * 4, TILE * 4) if planar else (TILE, TILE, TILE)
    chunk = triple(min(c, s) for c, s in zip(raw.meta.chunk_shape, raw.meta.shape, strict=True))
    if prod(chunk) > CHUNK_VOXELS:
        return triple(min(c, w) for c, w in zip(chunk, wanted, strict=True))
    shape = list(chunk)
    # The last axis first: its voxels are next to each other in most stores.
    for axis in (2, 1, 0):
        room = TILE_VOXELS // (prod(shape) // shape[axis])
        shape[axis] = max(1, min(wanted[axis], room) // chunk[axis]) * chunk[axis]
    return triple(min(edge, extent) for edge, extent in zip(shape, raw.meta.shape, strict=True))


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
