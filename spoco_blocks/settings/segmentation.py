"""Sections that say how a volume is segmented."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from spoco_blocks.clustering import (
    Consistency,
    EmbeddingMutex,
    GridHdbscan,
    Hdbscan,
    MeanShift,
    MeanShiftPlus,
    Modes,
    Mutex,
)
from spoco_blocks.settings.base import Count, CountOrZero, Fraction, Name, Positive, Section

OmeZarrVersion = Literal["0.5", "0.4"]


class BlockSettings(Section):
    """How the volume is cut."""

    shape_voxels: tuple[Count, Count, Count] = (128, 128, 128)
    """Inner shape of a block; rounded up to what the network's strides need."""
    halo_voxels: CountOrZero = 24
    """Margin that clustering sees around a block. Where it is as wide as objects, the cut hardly shows. The halo of the
    network is computed, not set."""


class PredictionSettings(Section):
    """How the network is applied to a block."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Numbers to compute in. float32: blocks agree with each other to 1e-5; bfloat16: quicker on processors made for
    it, with two to three digits."""
    patch_voxels: tuple[Count, Count, Count] | None = None
    """Blocks are predicted in patches of about this shape, which never shows; null = each in one piece, as long as
    memory allows."""
    batch: Count = 1
    """Patches computed at once; halved when memory runs out."""
    mirrored: bool = False
    """Whether mirror images are predicted as well, and foreground and affinities averaged: 16 times the work, 8 times
    for images, and somewhat better objects of kind mutex."""


class StitchingSettings(Section):
    """The one global decision about which fragments are one object. Distances are in embedding units."""

    merge_distance: Positive | None = None
    """Touching fragments whose means are nearer than this are one object; null = 1.25 times as far as embeddings of one
    object lie apart by what the model was trained to."""
    distinct_distance: Positive | None = None
    """Fragments that one block saw touching, farther apart than this, are never fused through a chain of others; null =
    twice as far."""
    min_overlap: Fraction = 0.5
    """Only for kinds that give final objects (all but modes): objects of neighbouring blocks are one when
    they share this part of the smaller one's section, where both blocks see the same voxels."""
    small_voxels: CountOrZero = 100
    """Segments under this size join their most similar neighbour."""
    small_distance: Positive = 3.0
    """... if its mean is nearer than this."""
    min_voxels: CountOrZero = 0
    """Segments still under this size are dropped."""
    exact: bool = False
    """Whether the same embeddings give the same objects however the volume is cut, for kind modes: true reads them
    three times, with wider margins; false once, and the report says how much the cut shows. Predictions for other
    blocks differ in their last digits."""
    fill_holes_voxels: CountOrZero = 0
    """Background of at most so many voxels that a single segment encloses becomes part of it; 0 = holes stay. Between
    none and some, clustering runs again, because it records the background as well."""


class MeshSettings(Section):
    """Surfaces of the objects as triangles, for neuroglancer."""

    level: CountOrZero | None = None
    """Level of the segmentation's pyramid that is meshed, 0 = full resolution; null = the coarsest at which the median
    object is still about 8 voxels thick."""
    min_voxels: CountOrZero = 0
    """Objects under this size, in voxels of full resolution, get no mesh."""


class SkeletonSettings(Section):
    """Centre lines of the objects, for neuroglancer."""

    level: CountOrZero | None = None
    """Level of the segmentation's pyramid that is used, 0 = full resolution; null = the coarsest at which the median
    object is still about 8 voxels thick."""
    min_voxels: CountOrZero = 0
    """Objects under this size, in voxels of full resolution, get no skeleton."""
    max_box_voxels: Count = 2**25
    """Each object is looked at whole; one whose box holds more voxels of the level gets no skeleton. A worker takes 2
    bytes of memory for each, and 50 more for those of the object."""
    branch_radii: Positive = 1.5
    """What lies within so many radii of a line gets no branch of its own; larger = fewer branches."""
    branch_voxels: CountOrZero = 4
    """... and so many voxels more."""


ClusteringSettings = Annotated[
    Modes | Mutex | EmbeddingMutex | MeanShift | MeanShiftPlus | Hdbscan | GridHdbscan | Consistency,
    Field(discriminator="kind"),
]


class Segmenting(Section):
    """How a volume is cut, and how its embeddings become objects."""

    foreground_threshold: Fraction | None = None
    """Voxels whose foreground probability is above this belong to objects; null = as suits the objects that the model
    learnt from. Training weighs both classes alike, however rare one is, so 0.5 is not special."""
    blocks: BlockSettings = BlockSettings()
    """How the volume is cut."""
    prediction: PredictionSettings = PredictionSettings()
    """How the network is applied."""
    embeddings: Literal["keep", "stream"] = "keep"
    """keep = store what the network says, to look at it and to cluster again without a GPU; stream = predict anew
    whenever a block is clustered, and store nothing but fragments (about 40 bytes a voxel less)."""
    embedding_type: Literal["float16", "int8"] = "float16"
    """What embeddings are stored as; int8 has one scale for each channel and takes half of the disk."""
    clustering: ClusteringSettings | None = None
    """How voxels become fragments, `kind` names the method; null = mutex for 2D, else modes or mutex, whichever suits
    the objects that the model learnt from."""
    stitching: StitchingSettings = StitchingSettings()
    """How fragments become objects."""

    @model_validator(mode="after")
    def _exact_is_possible(self) -> Segmenting:
        if not self.stitching.exact:
            return self
        if self.embeddings == "stream":
            raise ValueError(
                "stitching.exact needs stored embeddings: predictions of two blocks differ in the last digits; "
                "set embeddings: keep, or exact: false"
            )
        if self.clustering is not None and not isinstance(self.clustering, Modes):
            raise ValueError(
                f"stitching.exact is for clustering kind modes, not {self.clustering.kind}; choose it, or exact: false"
            )
        return self


class SegmentationSettings(Segmenting):
    """A segmentation: one volume, one model, and how embeddings become objects."""

    volume: Name
    """The volume to segment."""
    model: Name
    """The model to use."""
    weights: Literal["g", "f"] = "g"
    """The network that predicts: g = the moving average, f = the one that gradients train. For kind consistency the
    other one predicts as well."""
    meshes: MeshSettings | None = None
    """Meshes of all objects; null = none, {} = with what suits the objects. Only for 3D volumes."""
    skeletons: SkeletonSettings | None = None
    """Skeletons of all objects; null = none, {} = with what suits the objects. Only for 3D volumes."""
    raw_pyramid: bool = False
    """Whether to copy the raw data as an OME-Zarr image with the levels of the segmentation, for viewers; none is made
    where the raw data have levels and state their voxel size."""
    ome_zarr_version: OmeZarrVersion = "0.5"
    """What segmentation and raw pyramid are stored as. 0.4 is for programs that do not read 0.5: it knows no shards, so
    that every chunk is a file of its own."""
