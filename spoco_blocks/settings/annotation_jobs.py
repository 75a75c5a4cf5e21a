"""What the stages of an annotation curve are given; the other jobs are in `jobs`."""

from __future__ import annotations

from spoco_blocks.settings.annotation_curve import CurveRun, curve_runs, curve_segmentation
from spoco_blocks.settings.base import Section
from spoco_blocks.settings.jobs import LabelsJob, labels_job
from spoco_blocks.settings.sections import Settings, TruthSettings


class AnnotationBaselineJob(Section):
    """Tune the classical chain on the labels, and score it."""

    segmentation: str
    training: tuple[LabelsJob, ...]
    volume: LabelsJob
    truth: TruthSettings


class AnnotationCurveJob(Section):
    """Draw score against number of annotated objects."""

    segmentation: str
    runs: tuple[CurveRun, ...]


def annotation_baseline_job(settings: Settings) -> AnnotationBaselineJob:
    """Give the job of stage `annotation_baseline`: all labels of the model, whatever `keep_fraction` says.

    Raises
    ------
    SettingsError
        When there is no segmentation that a curve can be drawn of.
    """
    name = curve_segmentation(settings)
    section = settings.segmentations[name]
    truth = settings.volumes[section.volume].truth
    assert truth is not None
    return AnnotationBaselineJob(
        segmentation=name,
        training=tuple(labels_job(settings, volume) for volume in settings.models[section.model].volumes),
        volume=labels_job(settings, section.volume),
        truth=truth,
    )


def annotation_curve_job(settings: Settings) -> AnnotationCurveJob:
    """Give the job of stage `annotation_curve`.

    Raises
    ------
    SettingsError
        When there is no segmentation that a curve can be drawn of.
    """
    return AnnotationCurveJob(segmentation=curve_segmentation(settings), runs=curve_runs(settings))
