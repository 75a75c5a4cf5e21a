"""The annotation curve: score against number of annotated objects, and what has to be trained for it."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from spoco_blocks.errors import SettingsError
from spoco_blocks.settings.base import CountOrZero, Name, Section

if TYPE_CHECKING:
    from spoco_blocks.settings.sections import ModelSettings, Settings, VolumeSettings

# What is compared, and the weights of the loss that it changes.
VARIANTS: dict[str, dict[str, float]] = {
    "full": {},
    "pull-push": {"dice": 0.0, "consistency": 0.0, "unlabelled_push": 0.0, "affinity": 0.0},
}


class AnnotationCurveSettings(Section):
    """What `snakemake annotation_curve` trains: every fraction with every seed, by the full method and by pull and push
    alone. The labels have to be complete; `labels.keep_fraction` is replaced.
    """

    segmentation: Name | None = None
    """The segmentation to vary; null = the first whose volume has truth and whose model is trained."""
    fractions: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (
        0.02, 0.05, 0.1, 0.3, 1.0,
    )  # fmt: skip
    """Fractions of the objects that count as annotated."""
    seeds: Annotated[tuple[CountOrZero, ...], Field(min_length=1)] = (0, 1, 2)
    """Seeds of the choice of objects and of training."""

    @model_validator(mode="after")
    def _no_run_twice(self) -> AnnotationCurveSettings:
        for name, values in (("fractions", self.fractions), ("seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise ValueError(f"annotation_curve.{name} names a value twice; each is trained once")
        return self


class CurveRun(Section):
    """One training of the curve, and where its results are found."""

    variant: str
    fraction: float
    seed: int
    segmentation: str
    model: str
    volumes: tuple[str, ...]


def curve_segmentation(settings: Settings) -> str:
    """Give the name of the segmentation that the curve varies.

    Raises
    ------
    SettingsError
        When it has no truth to score against, or its model is not trained.
    """
    chosen = settings.annotation_curve.segmentation
    for name in settings.segmentations if chosen is None else (chosen,):
        section = settings.segmentations[name]
        if settings.volumes[section.volume].truth is not None and settings.models[section.model].volumes:
            return name
    what = "no segmentation has" if chosen is None else f"segmentations.{chosen} does not have"
    raise SettingsError(
        f"{what} both a model that is trained on volumes (no checkpoint) and a volume with truth; an annotation curve "
        "needs both. Name another under annotation_curve.segmentation, or add `truth` to its volume."
    )


def curve_runs(settings: Settings) -> tuple[CurveRun, ...]:
    """List all trainings of the curve.

    Raises
    ------
    SettingsError
        As `curve_segmentation`.
    """
    name, curve = curve_segmentation(settings), settings.annotation_curve
    model = settings.segmentations[name].model
    runs = []
    for variant, fraction, seed in product(VARIANTS, curve.fractions, curve.seeds):
        # Names are folders and wildcards: no dot in them.
        labels = f"f{100 * fraction:g}-s{seed}".replace(".", "_")
        runs.append(
            CurveRun(
                variant=variant,
                fraction=fraction,
                seed=seed,
                segmentation=f"{name}--{variant}-{labels}",
                model=f"{model}--{variant}-{labels}",
                volumes=tuple(f"{volume}--{labels}" for volume in settings.models[model].volumes),
            )
        )
    return tuple(runs)


def curve_settings(settings: Settings) -> Settings:
    """Add the volumes, models and segmentations of the curve; the ordinary rules then make them.

    Parameters
    ----------
    settings : Settings
        As the user wrote them; given back as they are when no curve can be drawn.
    """
    try:
        runs = curve_runs(settings)
    except SettingsError:
        return settings
    segmentation = settings.segmentations[curve_segmentation(settings)]
    model = settings.models[segmentation.model]
    volumes, models, segmentations = dict(settings.volumes), dict(settings.models), dict(settings.segmentations)
    for run in runs:
        for original, derived in zip(model.volumes, run.volumes, strict=True):
            volumes[derived] = _annotated(settings.volumes[original], run)
        models[run.model] = _trained(model, run)
        segmentations[run.segmentation] = segmentation.model_copy(update={"model": run.model})
    return settings.model_copy(update={"volumes": volumes, "models": models, "segmentations": segmentations})


def _annotated(volume: VolumeSettings, run: CurveRun) -> VolumeSettings:
    assert volume.labels is not None
    labels = volume.labels.model_copy(update={"keep_fraction": run.fraction, "seed": run.seed})
    return volume.model_copy(update={"labels": labels})


def _trained(model: ModelSettings, run: CurveRun) -> ModelSettings:
    loss = model.training.loss.model_copy(update=VARIANTS[run.variant])
    training = model.training.model_copy(update={"loss": loss, "seed": run.seed})
    changes: dict[str, Any] = {"volumes": run.volumes, "training": training}
    if run.variant == "pull-push":  # neither the affinity head nor what a first model found may help
        changes["network"] = model.network.model_copy(update={"affinities": False})
        changes["pseudo_labels"] = model.pseudo_labels.model_copy(update={"rounds": 0})
    return model.model_copy(update=changes)
