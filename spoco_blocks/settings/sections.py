"""The sections of the configuration, one per stage, from which the JSON schema is generated.

Lengths are in nm unless a key ends in ``_voxels``. Triples are z, y, x.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from spoco_blocks.clustering import Hdbscan, MeanShift, Modes
from spoco_blocks.settings.base import Count, CountOrZero, Fraction, LengthsNm, Name, NotNegative, Positive, Section
from spoco_blocks.settings.loss import LossSettings
from spoco_blocks.settings.training import TrainingSettings

__all__ = ["LengthsNm", "LossSettings", "NotNegative", "Section", "TrainingSettings"]


class Region(Section):
    """A box of a volume; an open end is null. Give nm or voxels (of the level that is read), not both."""

    start_nm: tuple[float | None, float | None, float | None] | None = None
    """Where it starts, in nm from the volume's first voxel."""
    stop_nm: tuple[float | None, float | None, float | None] | None = None
    """Where it ends, excluded."""
    start_voxels: tuple[int | None, int | None, int | None] | None = None
    """Where it starts, in voxels."""
    stop_voxels: tuple[int | None, int | None, int | None] | None = None
    """Where it ends, excluded."""

    @model_validator(mode="after")
    def _one_unit(self) -> Region:
        if (self.start_nm or self.stop_nm) and (self.start_voxels or self.stop_voxels):
            raise ValueError("a region is given in nm or in voxels, not in both")
        return self


class Source(Section):
    """A stored volume."""

    uri: str
    """Where it is: an OME-Zarr image, a Zarr array, or FILE.h5/DATASET."""
    level: CountOrZero = 0
    """Level of an OME-Zarr pyramid, 0 = full resolution. Objects about 15 voxels across learn quickest."""
    axes: Literal["yx", "zyx", "czyx", "nyx"] | None = None
    """Order of the axes where the store does not say; nyx = independent 2D images."""


class LabelSettings(Source):
    """Annotated objects to learn from: 0 = not labelled, every other value is one object."""

    region: Region | None = None
    """Only this part is used for training; the rest is never looked at."""
    min_voxels: Count = 1
    """Objects under this size are treated as not labelled."""
    keep_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction of the objects that counts as annotated, drawn with `seed`; 1 = all (your own sparse labels)."""
    seed: int = 0
    """Seed of the draws that `keep_fraction` and `background_fraction` make."""
    dense: bool = False
    """Every object inside `region` is labelled: 0 means background there."""
    background: Source | None = None
    """Mask of known background (non-zero = background)."""
    background_fraction: Fraction = 0.0
    """Only for labels in which every object is labelled: fraction of the clearly empty cubes (8 voxels a side, no
    object within 2 voxels) that counts as annotated background."""
    ignore: Source | None = None
    """Mask of voxels that take no part in any loss (non-zero = ignore)."""
    shell_voxels: CountOrZero = 2
    """Voxels this near outside an annotated object count as background, unless another object is labelled there."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Part of the region, along its longest axis, that is kept from training once there are 10 objects or more."""


class TruthSettings(Source):
    """Complete labels to score against."""

    region: Region | None = None
    """Only this part is scored."""
    min_voxels: CountOrZero = 0
    """Objects under this size are left out of the scores."""


class VolumeSettings(Section):
    """A volume and what is known about it."""

    raw: Source
    """The microscopy data."""
    voxel_size_nm: LengthsNm | None = None
    """Voxel size at level 0; null = as stored."""
    labels: LabelSettings | None = None
    """Objects to learn from; only needed for volumes that train a model."""
    truth: TruthSettings | None = None
    """Complete labels to score against; without them the scores are left out."""


class NetworkSettings(Section):
    """The embedding network: a residual 3D U-Net, its kernels and pooling planned from the voxel size."""

    width: Count = 16
    """Channels of the first level; doubled at each further level."""
    levels: Annotated[int, Field(ge=1, le=6)] = 3
    """Resolutions, the full one included."""
    embedding_channels: Annotated[int, Field(ge=3)] = 8
    """Channels of the embedding."""


class ModelSettings(Section):
    """A model: trained on volumes, or a checkpoint that exists."""

    volumes: tuple[Name, ...] = ()
    """Volumes to train on; all need labels."""
    checkpoint: str | None = None
    """A trained model's file, instead of training one."""
    network: NetworkSettings = NetworkSettings()
    """The network."""
    training: TrainingSettings = TrainingSettings()
    """How it is trained."""

    @model_validator(mode="after")
    def _trained_or_given(self) -> ModelSettings:
        if bool(self.volumes) == bool(self.checkpoint):
            raise ValueError("a model needs either volumes to train on or a checkpoint, and not both")
        return self


class BlockSettings(Section):
    """How the volume is cut."""

    shape_voxels: tuple[Count, Count, Count] = (128, 128, 128)
    """Inner shape of a block; rounded up to what the network's strides need."""
    halo_voxels: CountOrZero = 16
    """Margin that clustering sees around a block. The halo of the network is computed, not set."""


class StitchingSettings(Section):
    """The one global decision about which fragments are one object. Distances are in embedding units."""

    merge_distance: Positive = 1.0
    """Touching fragments whose means are nearer than this are one object."""
    distinct_distance: Positive = 2.0
    """Fragments that one block saw touching, farther apart than this, are never fused through a chain of others."""
    small_voxels: CountOrZero = 100
    """Segments under this size join their most similar neighbour."""
    small_distance: Positive = 3.0
    """... if its mean is nearer than this."""
    min_voxels: CountOrZero = 0
    """Segments still under this size are dropped."""


ClusteringSettings = Annotated[Modes | MeanShift | Hdbscan, Field(discriminator="kind")]


class SegmentationSettings(Section):
    """A segmentation: one volume, one model, and how embeddings become objects."""

    volume: Name
    """The volume to segment."""
    model: Name
    """The model to use."""
    foreground_threshold: Fraction = 0.4
    """Voxels whose foreground probability is above this belong to objects. Training weighs both classes alike, however
    rare one is, so 0.5 is not special; on the demo 0.4 gives the better masks."""
    blocks: BlockSettings = BlockSettings()
    """How the volume is cut."""
    clustering: ClusteringSettings = Modes()
    """How a block's embeddings become fragments; `kind` names the method."""
    stitching: StitchingSettings = StitchingSettings()
    """How fragments become objects."""


class ExecutionSettings(Section):
    """How work is spread; never changes a result."""

    shards: Count = 1
    """Jobs per blockwise stage. On a cluster three to four per GPU; a shard continues where it stopped."""
    executor: Literal["serial", "threads", "dask"] = "dask"
    """What runs the blocks of a shard: dask = local processes."""


class Settings(Section):
    """The configuration file."""

    volumes: dict[Name, VolumeSettings]
    """The data, by name."""
    models: dict[Name, ModelSettings]
    """The models, by name."""
    segmentations: dict[Name, SegmentationSettings]
    """What to make, by name."""
    execution: ExecutionSettings = ExecutionSettings()
    """How work is spread."""

    @model_validator(mode="after")
    def _names_exist(self) -> Settings:
        for name, model in self.models.items():
            for volume in model.volumes:
                _known(volume, self.volumes, f"models.{name}.volumes")
                if self.volumes[volume].labels is None:
                    raise ValueError(f"models.{name} trains on volume '{volume}', which has no labels")
        for name, segmentation in self.segmentations.items():
            _known(segmentation.volume, self.volumes, f"segmentations.{name}.volume")
            _known(segmentation.model, self.models, f"segmentations.{name}.model")
        return self


def _known(name: str, names: dict[str, Any], where: str) -> None:
    if name not in names:
        raise ValueError(f"{where} names '{name}', which is not defined; defined are: {', '.join(sorted(names))}")
