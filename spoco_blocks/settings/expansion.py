"""Rounds of pseudo-labels written out as models and segmentations, which ordinary stages then make.

A model NAME that asks for two rounds becomes three: ``NAME--round0`` learns from the labels, ``NAME--round1`` also from
what ``NAME--round0`` segmented, NAME also from what ``NAME--round1`` segmented. Its `rounds` says which of them one is.
"""

from __future__ import annotations

from spoco_blocks.settings.sections import Settings
from spoco_blocks.settings.segmentation import SegmentationSettings

_ROUND = "--round"


class TeacherSegmentation(SegmentationSettings):
    """A segmentation of the training part of a volume, made to learn from."""


def expand(settings: Settings) -> Settings:
    """Add the models and segmentations that rounds of pseudo-labels need.

    Parameters
    ----------
    settings : Settings
        As the user wrote them, in which no name holds ``--``.

    Returns
    -------
    Settings
        The same with more entries; equal where no model asks for rounds.
    """
    models, segmentations = dict(settings.models), dict(settings.segmentations)
    for name, model in settings.models.items():
        for number in range(model.pseudo_labels.rounds):
            teacher = f"{name}{_ROUND}{number}"
            earlier = model.pseudo_labels.model_copy(update={"rounds": number})
            models[teacher] = model.model_copy(update={"pseudo_labels": earlier})
            for volume in model.volumes:
                for weights, segmentation in teacher_segmentations(teacher, volume).items():
                    segmentations[segmentation] = TeacherSegmentation(
                        volume=volume, model=teacher, weights=weights, **dict(model.pseudo_labels.segmentation)
                    )
    return settings.model_copy(update={"models": models, "segmentations": segmentations})


def teacher_of(settings: Settings, model: str) -> str | None:
    """Name the model whose segmentations a model learns from; None where it learns from the labels alone."""
    rounds = settings.models[model].pseudo_labels.rounds
    if not rounds:
        return None
    name, separator, _ = model.rpartition(_ROUND)
    return f"{name if separator else model}{_ROUND}{rounds - 1}"


def teacher_segmentations(teacher: str, volume: str) -> dict[str, str]:
    """Name the two segmentations of a volume that must agree, by the network that predicts."""
    return {weights: f"{teacher}--{volume}--{weights}" for weights in ("f", "g")}
