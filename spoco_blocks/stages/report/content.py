"""What a report says, as plain data: nothing here reads or writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.errors import VolumeError
from spoco_blocks.grid import Box, Triple

LengthsNm = tuple[float, float, float]


@dataclass(frozen=True)
class Picture:
    """The part of the volume that is shown, at display resolution; all layers have one shape (z, y, x).

    Attributes
    ----------
    box : Box
        What is shown, in voxels of the volume.
    step : tuple of int
        Voxels of the volume per displayed voxel along z, y, x.
    raw : numpy.ndarray
        float, 0 = black, 1 = white.
    segments : numpy.ndarray
        Segment ids, 0 = none.
    truth : numpy.ndarray or None
        Truth ids, 0 = none.
    embedding_rgb : numpy.ndarray or None
        (3, z, y, x) uint8: the embedding's three main directions as colours.
    foreground : numpy.ndarray or None
        float, probability of belonging to an object.
    """

    box: Box
    step: Triple
    raw: NDArray[Any]
    segments: NDArray[Any]
    truth: NDArray[Any] | None = None
    embedding_rgb: NDArray[Any] | None = None
    foreground: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        for name in ("segments", "truth", "embedding_rgb", "foreground"):
            layer = getattr(self, name)
            if layer is not None and layer.shape[-3:] != self.raw.shape:
                raise VolumeError(f"layer '{name}' has shape {layer.shape}; raw has {self.raw.shape}.")

    @property
    def shape(self) -> Triple:
        """Displayed voxels along z, y, x."""
        z, y, x = self.raw.shape
        return z, y, x


@dataclass(frozen=True)
class ObjectTable:
    """Columns of the object table, one entry per segment, in any order.

    Attributes
    ----------
    id, voxels : numpy.ndarray
        Segment id and size.
    box : numpy.ndarray
        (n, 6): z0, y0, x0, z1, y1, x1 in voxels, ends excluded.
    centroid_nm : numpy.ndarray
        (n, 3): z, y, x.
    touches_border : numpy.ndarray
        Whether the segment is cut by the volume's edge.
    """

    id: NDArray[Any]
    voxels: NDArray[Any]
    box: NDArray[Any]
    centroid_nm: NDArray[Any]
    touches_border: NDArray[Any]

    def __len__(self) -> int:
        return len(self.id)

    @classmethod
    def empty(cls) -> ObjectTable:
        """Give a table without objects."""
        return cls(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 6), int), np.zeros((0, 3)), np.zeros(0, bool))


@dataclass(frozen=True)
class StageTime:
    """How long a stage took: `seconds` of wall time, and of each shard where it was cut into several."""

    name: str
    seconds: float
    shards: tuple[float, ...] = ()


@dataclass(frozen=True)
class StageCost:
    """What a stage was thought to cost before it ran, and what it did.

    Attributes
    ----------
    name : str
        The stage.
    blocks, work_s, disk_bytes : tuple of (number, number or None)
        Planned and used: blocks, seconds of all blocks one after the other, bytes that it left; None = not known.
    processors, memory_mb : tuple of (number or None, number or None)
        Asked for and used by a job, in the attempts of all shards: processors on average; memory of all processes, and
        of the largest one, in MiB.
    bound : bool
        Whether work and bytes were only known to be at most so much.
    """

    name: str
    blocks: tuple[int, int | None]
    work_s: tuple[float, float | None]
    disk_bytes: tuple[int, int | None]
    processors: tuple[float | None, float | None] = (None, None)
    memory_mb: tuple[int | None, int | None] = (None, None)
    bound: bool = False


@dataclass(frozen=True)
class ReportContent:
    """Everything on the page.

    Attributes
    ----------
    segmentation, volume, model : str
        Names in the configuration.
    shape : tuple of int
        Voxels along z, y, x; images, y, x when `independent_images`.
    voxel_size_nm : tuple of float or None
        Extent of a voxel along z, y, x; None when nobody said.
    independent_images : bool
        Whether the first axis counts images that have nothing to do with each other.
    picture : Picture or None
        What the slice viewer shows.
    scored : Box or None
        The region that was scored, in voxels of the volume.
    scores : dict or None
        As in scores.json; None when there is no truth.
    curves : list
        Iteration and the columns of the learning curves there.
    objects : ObjectTable
        All segments.
    stages : list of StageTime
        In the order in which they ran.
    costs : list of StageCost
        Of the stages that were estimated.
    settings : dict
        Settings of each stage.
    decided : dict
        What clustering and stitching went by, set or found by the program.
    versions : dict
        Versions of the programs.
    provenance : dict
        Digest of each stage's result.
    seams : dict or None
        What `stitch` says of the faces between blocks; None where there are none.
    recut : dict or None
        How well blocks across those faces agree with the segmentation, as `recut` says; None where it did not run.
    notes : list of str
        What the reader must know before trusting the result.
    finished : str
        When the result was complete, in UTC.
    stores : tuple of str
        OME-Zarr images that viewers open together: the segmentation, after the raw data where these are one.
    """

    segmentation: str
    volume: str
    model: str
    shape: Triple
    voxel_size_nm: LengthsNm | None = None
    independent_images: bool = False
    picture: Picture | None = None
    scored: Box | None = None
    scores: Mapping[str, Any] | None = None
    curves: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    objects: ObjectTable = field(default_factory=ObjectTable.empty)
    stages: list[StageTime] = field(default_factory=list)
    costs: list[StageCost] = field(default_factory=list)
    settings: Mapping[str, Any] = field(default_factory=dict)
    decided: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    seams: Mapping[str, Any] | None = None
    recut: Mapping[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    finished: str = ""
    stores: tuple[str, ...] = ()

    @property
    def flat(self) -> bool:
        """Whether there is nothing to see along z: a 2D image, or independent images."""
        return self.independent_images or self.shape[0] == 1
