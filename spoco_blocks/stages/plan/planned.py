"""How one volume is cut and segmented: what every later stage goes by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from spoco_blocks.clustering import METHODS, Method, Modes
from spoco_blocks.engine.layout import SegmentationResults
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.errors import LedgerError
from spoco_blocks.grid import BlockGrid, Triple, triple
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.output import PredictedOutput, StoredOutput


@dataclass(frozen=True)
class Plan:
    """How one volume is cut, read from the manifest of stage `plan`.

    Attributes
    ----------
    origin : tuple of int
        Where the part that is segmented starts in the volume; everything else counts from there.
    shape, block_shape : tuple of int
        That part's and a block's.
    network_halo, stride : tuple of int
        Of the network, computed from its architecture.
    cluster_halo : tuple of int
        Margin that clustering sees.
    region_shape : tuple of int
        Regions of the volume in which modes are sought; independent of the block shape.
    voxel_size_nm : tuple of float
        Voxel size.
    coordinate_scale : tuple of float or None
        Voxels over which position adds 1 to the embedding.
    planar : bool
        Whether the first axis counts independent images.
    offsets : tuple of tuple of int
        Offsets of the affinities that the network predicts; empty = none.
    neighbours : int
        How many of them are direct neighbours.
    clustering_kind, foreground_threshold, smallest_voxels, object_distance : str, float, int or None, float
        Method, threshold, size of a small object and how far its embeddings lie apart, as the model says.
    step : tuple of int
        Along each axis, every how many voxels one is clustered first.
    predicted : PredictedOutput
        The network, applied to any box.
    stream : bool
        Whether it is applied whenever a block is clustered, instead of storing what it says.
    levels : int
        Levels of the output's pyramid.
    factors : tuple of tuple of int
        Downsampling between one level and the next.
    """

    origin: Triple
    shape: Triple
    block_shape: Triple
    network_halo: Triple
    stride: Triple
    cluster_halo: Triple
    region_shape: Triple
    voxel_size_nm: tuple[float, float, float]
    coordinate_scale: tuple[float, float, float] | None
    planar: bool
    offsets: tuple[Triple, ...]
    neighbours: int
    clustering_kind: str
    foreground_threshold: float
    smallest_voxels: int | None
    object_distance: float
    step: Triple
    predicted: PredictedOutput
    stream: bool
    levels: int
    factors: tuple[Triple, ...]

    @property
    def embed_grid(self) -> BlockGrid:
        """Blocks of stage `embed`."""
        return BlockGrid(self.shape, self.block_shape, self.network_halo, self.stride)

    @property
    def cluster_grid(self) -> BlockGrid:
        """Blocks of stage `cluster`, with the same inner boxes."""
        return BlockGrid(self.shape, self.block_shape, self.cluster_halo)

    @property
    def seeking_grid(self) -> BlockGrid:
        """Groups of regions in which modes are sought together: what is read for one is about a block."""
        shape = triple(max(1, b // r) * r for b, r in zip(self.block_shape, self.region_shape, strict=True))
        return BlockGrid(self.shape, shape, self.region_grid.halo)

    @property
    def region_grid(self) -> BlockGrid:
        """Regions in which modes are sought; one voxel of halo for the gradient."""
        return BlockGrid(self.shape, self.region_shape, triple((0 if self.planar else 1, 1, 1)))

    def level_grid(self, level: int) -> BlockGrid:
        """Blocks of a level of the pyramid, in its voxels: as large as those of level 0, where the level is."""
        shape = self.shape
        for factor in self.factors[:level]:
            shape = triple(-(-s // f) for s, f in zip(shape, factor, strict=True))
        return BlockGrid(shape, triple(min(b, s) for b, s in zip(self.block_shape, shape, strict=True)))

    def method(self, chosen: Method | None) -> Method:
        """Give the clustering method: the chosen one, or the model's."""
        method = METHODS[self.clustering_kind]() if chosen is None else chosen
        return method.suited(self.object_distance) if isinstance(method, Modes) else method

    def threshold(self, chosen: float | None) -> float:
        """Give the foreground threshold: the chosen one, or the model's."""
        return self.foreground_threshold if chosen is None else chosen

    def output(self, results: SegmentationResults, *, affinities: bool) -> StoredOutput | PredictedOutput:
        """Give what the network says of any box, with affinities or without them."""
        offsets = len(self.offsets) if affinities else 0
        if self.stream:
            return replace(self.predicted, offsets=offsets)
        return StoredOutput(
            embeddings=Source(uri=results.embeddings),
            foreground=Source(uri=results.foreground),
            affinities=Source(uri=results.affinities) if offsets else None,
            channels=self.predicted.channels,
            offsets=offsets,
            other=None if self.predicted.other is None else Source(uri=results.other_embeddings),
        )

    def embedded(self, results: SegmentationResults, threshold: float | None, *, affinities: bool = False) -> Embedded:
        """Give embeddings and foreground of any box as clustering sees them, with the threshold that was chosen."""
        output = self.output(results, affinities=affinities)
        return Embedded(output, self.threshold(threshold), self.coordinate_scale, self.predicted.scale)

    @classmethod
    def read(cls, manifest: Manifest) -> Plan:
        """Read the plan back.

        Raises
        ------
        LedgerError
            When another version of the program made it.
        """
        described = dict(manifest.result["plan"])
        if described["coordinate_scale"] is not None:
            described["coordinate_scale"] = [float("inf") if s is None else s for s in described["coordinate_scale"]]
        try:
            return TypeAdapter(cls).validate_python(described)
        except ValidationError as error:
            names = ", ".join(sorted({str(problem["loc"][0]) for problem in error.errors()}))
            raise LedgerError(
                f"the plan of this segmentation was made by another version of the program (it differs in: {names}); "
                "remove plan.json from the segmentation's results and start the workflow again."
            ) from None

    def describe(self) -> dict[str, Any]:
        """Give the plan as JSON values."""
        described: dict[str, Any] = TypeAdapter(Plan).dump_python(self, mode="json")
        # JSON knows no infinity.
        finite = [None if s == float("inf") else s for s in self.coordinate_scale or ()]
        return {**described, "coordinate_scale": None if self.coordinate_scale is None else finite}
