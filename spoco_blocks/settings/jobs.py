"""What each stage is given: the sections that decide its result, and nothing else.

A job's canonical JSON is the parameter of its Snakemake rule, so that changing one key re-runs the stages whose job it
is part of and those that follow.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from spoco_blocks.clustering import Consistency
from spoco_blocks.errors import SettingsError
from spoco_blocks.settings.base import Count, Fraction, LengthsNm, Section
from spoco_blocks.settings.clustering_jobs import clustering_job
from spoco_blocks.settings.expansion import TeacherSegmentation, teacher_of, teacher_segmentations
from spoco_blocks.settings.network import NetworkSettings
from spoco_blocks.settings.optional_jobs import optional_job
from spoco_blocks.settings.reading import explain
from spoco_blocks.settings.sections import LabelSettings, Settings, Source, TruthSettings, VolumeSettings
from spoco_blocks.settings.segmentation import (
    BlockSettings,
    MeshSettings,
    OmeZarrVersion,
    PredictionSettings,
    SkeletonSettings,
    StitchingSettings,
)
from spoco_blocks.settings.training import TrainingSettings


class CheckJob(Section):
    """Open everything that the configuration names."""

    volumes: dict[str, VolumeSettings]
    trained_on: dict[str, tuple[str, ...]]
    segmented: dict[str, tuple[str, ...]]
    model_voxel_size_nm: dict[str, LengthsNm | None]
    meshes: dict[str, tuple[str, MeshSettings]]
    """Of segmentations that have any: the volume, and how."""
    skeletons: dict[str, tuple[str, SkeletonSettings]]


class LabelsJob(Section):
    """Index one volume: intensities, annotated objects, split."""

    volume: str
    raw: Source
    voxel_size_nm: LengthsNm | None
    labels: LabelSettings | None


class Teaching(Section):
    """Learn also from what a teacher segmented."""

    teacher: str
    shell: bool
    continue_training: bool


class TrainJob(Section):
    """Train one model."""

    model: str
    volumes: tuple[LabelsJob, ...]
    voxel_size_nm: LengthsNm | None
    network: NetworkSettings
    training: TrainingSettings
    teaching: Teaching | None = None


class AgreeJob(Section):
    """Keep the segments of g that f segmented alike, as pseudo-labels."""

    segmentation: str
    other: str
    model: str
    volume: LabelsJob
    agreement: Fraction
    min_voxels: Count
    max_contradicted: Fraction
    background: Fraction


class PlanJob(Section):
    """Cut one volume into blocks and create the stores."""

    segmentation: str
    volume: LabelsJob
    model: str
    checkpoint: str | None
    weights: Literal["g", "f"]
    both_networks: bool
    training_part: bool
    blocks: BlockSettings
    mask: Source | None
    prediction: PredictionSettings
    embeddings: Literal["keep", "stream"]
    embedding_type: Literal["float16", "int8"]
    arrays: str | None
    ome_zarr_version: OmeZarrVersion


class SegmentationJob(Section):
    """Predict embeddings, or write segments and their pyramid: how is in what was planned or decided before."""

    segmentation: str


class StitchJob(Section):
    """Decide which fragments are one object."""

    segmentation: str
    stitching: StitchingSettings


class EvaluateJob(Section):
    """Score against the truth."""

    segmentation: str
    truth: TruthSettings | None


class ReportJob(Section):
    """Write the report."""

    segmentation: str
    volume: LabelsJob
    model: str
    truth: TruthSettings | None


AnyJob = TypeVar("AnyJob", bound=Section)


def check_job(settings: Settings) -> CheckJob:
    """Give the job of stage `check`: all volumes, and which of them a model learns from and is applied to."""
    applied = settings.segmentations.values()
    return CheckJob(
        volumes=settings.volumes,
        trained_on={name: model.volumes for name, model in settings.models.items()},
        segmented={name: tuple(s.volume for s in applied if s.model == name) for name in settings.models},
        model_voxel_size_nm={name: model.voxel_size_nm for name, model in settings.models.items()},
        meshes={name: (s.volume, s.meshes) for name, s in settings.segmentations.items() if s.meshes is not None},
        skeletons={name: (s.volume, s.skeletons) for name, s in settings.segmentations.items() if s.skeletons},
    )


def labels_job(settings: Settings, volume: str) -> LabelsJob:
    """Give the job of stage `labels` for a volume."""
    section = settings.volumes[volume]
    return LabelsJob(volume=volume, raw=section.raw, voxel_size_nm=section.voxel_size_nm, labels=section.labels)


def train_job(settings: Settings, model: str) -> TrainJob:
    """Give the job of stage `train` for a model."""
    section = settings.models[model]
    teacher, pseudo = teacher_of(settings, model), section.pseudo_labels
    return TrainJob(
        model=model,
        volumes=tuple(labels_job(settings, volume) for volume in section.volumes),
        voxel_size_nm=section.voxel_size_nm,
        network=section.network,
        training=section.training,
        teaching=None
        if teacher is None
        else Teaching(teacher=teacher, shell=pseudo.shell, continue_training=pseudo.continue_training),
    )


def agree_job(settings: Settings, teacher: str, volume: str) -> AgreeJob:
    """Give the job of stage `agree` for a teacher and one of its training volumes."""
    pseudo, names = settings.models[teacher].pseudo_labels, teacher_segmentations(teacher, volume)
    return AgreeJob(
        segmentation=names["g"],
        other=names["f"],
        model=teacher,
        volume=labels_job(settings, volume),
        agreement=pseudo.agreement,
        min_voxels=pseudo.min_voxels,
        max_contradicted=pseudo.max_contradicted,
        background=pseudo.background,
    )


def segmentation_job(settings: Settings, stage: str, name: str) -> Section:
    """Give the job of a segmentation's stage.

    Raises
    ------
    SettingsError
        When there is no such stage, or the segmentation is to have no meshes, skeletons or raw pyramid.
    """
    section = settings.segmentations[name]
    if (job := optional_job(section, stage, name)) is not None:
        return job
    volume = settings.volumes[section.volume]
    if stage == "plan":
        return PlanJob(
            segmentation=name,
            volume=labels_job(settings, section.volume),
            model=section.model,
            checkpoint=settings.models[section.model].checkpoint,
            weights=section.weights,
            both_networks=isinstance(section.clustering, Consistency),
            training_part=isinstance(section, TeacherSegmentation),
            blocks=section.blocks,
            mask=volume.mask,
            prediction=section.prediction,
            embeddings=section.embeddings,
            embedding_type=section.embedding_type,
            arrays=settings.execution.arrays,
            ome_zarr_version=section.ome_zarr_version,
        )
    if (clustering := clustering_job(section, stage, name, settings.execution.shards)) is not None:
        return clustering
    if stage == "stitch":
        return StitchJob(segmentation=name, stitching=section.stitching)
    if stage in ("embed", "relabel", "pyramid"):
        return SegmentationJob(segmentation=name)
    if stage == "evaluate":
        return EvaluateJob(segmentation=name, truth=volume.truth)
    if stage == "report":
        labels = labels_job(settings, section.volume)
        return ReportJob(segmentation=name, volume=labels, model=section.model, truth=volume.truth)
    raise SettingsError(f"no stage '{stage}' belongs to a segmentation.")


def canonical(job: Section) -> str:
    """Give the job as JSON that is equal for equal jobs."""
    return json.dumps(job.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


def read_job(kind: type[AnyJob], text: str) -> AnyJob:
    """Read a job back from its JSON.

    Raises
    ------
    SettingsError
        When it is not a job of this kind.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise SettingsError(explain(error, kind)) from None


def digest(*parts: Any) -> str:
    """Give a short name for a combination of JSON values: equal parts, equal digest."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
