"""The sections of the configuration, one per stage, from which the JSON schema is generated.

Lengths are in nm unless a key ends in ``_voxels``. Triples are z, y, x.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from spoco_blocks.settings.annotation_curve import AnnotationCurveSettings
from spoco_blocks.settings.base import Count, CountOrZero, Fraction, LengthsNm, Name, Section, Uri, WritableUri
from spoco_blocks.settings.images import Images
from spoco_blocks.settings.network import NetworkSettings
from spoco_blocks.settings.pseudo_labels import PseudoLabelSettings
from spoco_blocks.settings.segmentation import SegmentationSettings
from spoco_blocks.settings.training import TrainingSettings


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

    uri: Uri
    """Where it is: an OME-Zarr image or a Zarr array (a path, s3://BUCKET/KEY or https://…), FILE.h5/DATASET,
    FILE.tif, or a CVPPP or Cityscapes folder."""
    level: CountOrZero = 0
    """Level of an OME-Zarr pyramid, 0 = full resolution. Objects about 15 voxels across learn quickest."""
    axes: Literal["yx", "zyx", "czyx", "nyx", "cnyx"] | None = None
    """Order of the axes where the store does not say; nyx, cnyx = independent 2D images."""
    downscale: tuple[Count, Count, Count] | None = None
    """Read windows of so many voxels (z, y, x) as one: the mean of an image, the most frequent id of labels. For stores
    without a pyramid; the result has these larger voxels."""


class LabelSettings(Source):
    """Annotated objects to learn from: 0 = not labelled, every other value is one object."""

    region: Region | None = None
    """Only this part is used for training; the rest is never looked at."""
    images: Images | None = None
    """Only these are used for training, of independent 2D images."""
    min_voxels: Count = 1
    """Objects under this size are treated as not labelled."""
    keep_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction of the objects that counts as annotated, drawn with `seed`; 1 = all (your own sparse labels)."""
    keep_per: Literal["set", "image"] = "set"
    """What `keep_fraction` is a fraction of: all objects, or those of each image, and then at least one of each."""
    seed: int = 0
    """Seed of the draws that `keep_fraction` and `background_fraction` make."""
    dense: bool = False
    """Every object inside `region` is labelled: 0 means background there."""
    background: Source | None = None
    """Mask of known background (non-zero = background)."""
    background_fraction: Fraction = 0.0
    """Only for labels in which every object is labelled: fraction of the clearly empty cubes (8 voxels a side, no
    object within 2 voxels) that counts as annotated background."""
    also: tuple[Source, ...] = ()
    """Further label volumes of the same voxels (other annotators, other files): their objects fill voxels that the ones
    before leave at 0. Ids may repeat. An object should be in one of them only: its rest would be another object."""
    dense_regions: tuple[Region, ...] = ()
    """Boxes in which every object is labelled: inside, 0 means background; elsewhere it means not labelled."""
    partial: bool = False
    """Annotated parts may be smaller than their objects: no shell, and what is not labelled within
    `partial_margin_voxels` of them takes part in no loss, except for known background and in `dense_regions`."""
    partial_margin_voxels: CountOrZero = 8
    """How far an object may reach beyond its annotated part; across coarse sections the same length in fewer voxels."""
    ignore: Source | None = None
    """Mask of voxels that take no part in any loss (non-zero = ignore)."""
    shell_voxels: CountOrZero = 2
    """Voxels (of the model) this near outside an annotated object count as background, unless another object is
    labelled there."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Part of the region, along its longest axis, that is kept from training once there are 10 objects or more."""

    @model_validator(mode="after")
    def _partial_is_not_complete(self) -> LabelSettings:
        if self.partial and (self.dense or self.background_fraction):
            raise ValueError("partial objects leave open what is background; use dense_regions or a background mask")
        return self


class TruthSettings(Source):
    """Complete labels to score against."""

    region: Region | None = None
    """Only this part is scored."""
    images: Images | None = None
    """Only these are scored, of independent 2D images."""
    ignore: Source | None = None
    """Mask of voxels that are not scored (non-zero = ignore), as if neither truth nor segments had any there."""
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
    mask: Source | None = None
    """Where to segment (non-zero), at the resolution of raw or a whole number of times coarser: blocks without any such
    voxel cost nothing, and no object reaches outside."""


class ModelSettings(Section):
    """A model: trained on volumes, or a checkpoint that exists."""

    volumes: tuple[Name, ...] = ()
    """Volumes to train on; all need labels."""
    checkpoint: str | None = None
    """A trained model's file, instead of training one."""
    voxel_size_nm: LengthsNm | None = None
    """Voxel size to train at, null = that of the first volume; crops of other volumes are resampled to it. Volumes to
    segment must have it."""
    network: NetworkSettings = NetworkSettings()
    """The network."""
    training: TrainingSettings = TrainingSettings()
    """How it is trained."""
    pseudo_labels: PseudoLabelSettings = PseudoLabelSettings()
    """Training again on what it segmented itself."""

    @model_validator(mode="after")
    def _trained_or_given(self) -> ModelSettings:
        if bool(self.volumes) == bool(self.checkpoint):
            raise ValueError("a model needs either volumes to train on or a checkpoint, and not both")
        if self.checkpoint and self.pseudo_labels.rounds:
            raise ValueError("a model given as a checkpoint is not trained, so it has no rounds of pseudo_labels")
        return self


class ExecutionSettings(Section):
    """How work is spread; never changes a result."""

    shards: Count = 1
    """Jobs per blockwise stage. On a cluster three to four per GPU; a shard continues where it stopped."""
    executor: Literal["serial", "threads", "dask"] = "dask"
    """What runs the blocks of a shard: dask = processes, one for each GPU and one for each thread of the job."""
    scheduler: str | None = None
    """Address of a running Dask scheduler, tcp://HOST:8786, whose workers predict and cluster instead; they must see
    the same files. Those with a GPU are told by `dask worker ADDRESS --resources gpu=1`. Or slurm: workers
    are jobs, as Dask's configuration describes them."""
    arrays: WritableUri | None = None
    """Where embeddings, foreground, affinities, fragments, segmentations and raw pyramids go: a folder or
    s3://BUCKET/PREFIX, which no other results folder may use; null = into the results folder, where everything else
    stays."""


class Settings(Section):
    """The configuration file."""

    folder: str | None = None
    """What {folder} in a `uri` stands for; on the command line: --config folder=FOLDER."""
    volumes: dict[Name, VolumeSettings]
    """The data, by name."""
    models: dict[Name, ModelSettings]
    """The models, by name."""
    segmentations: dict[Name, SegmentationSettings]
    """What to make, by name."""
    execution: ExecutionSettings = ExecutionSettings()
    """How work is spread."""
    annotation_curve: AnnotationCurveSettings = AnnotationCurveSettings()
    """What `snakemake annotation_curve` trains and compares."""

    @model_validator(mode="after")
    def _names_are_ours_to_extend(self) -> Settings:
        for kind, names in (("volumes", self.volumes), ("models", self.models), ("segmentations", self.segmentations)):
            for name in names:
                if "--" in name:
                    raise ValueError(
                        f"{kind}.{name}: '--' in a name is kept for what the workflow derives; use one '-' or '_'"
                    )
        return self

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
            for kind in ("meshes", "skeletons"):
                wanted = getattr(segmentation, kind) is not None
                if wanted and "z" not in (self.volumes[segmentation.volume].raw.axes or "z"):
                    raise ValueError(f"segmentations.{name}.{kind} is for 3D volumes; leave it out for 2D images")
        if self.annotation_curve.segmentation is not None:
            _known(self.annotation_curve.segmentation, self.segmentations, "annotation_curve.segmentation")
        return self


def _known(name: str, names: dict[str, Any], where: str) -> None:
    if name not in names:
        raise ValueError(f"{where} names '{name}', which is not defined; defined are: {', '.join(sorted(names))}")
