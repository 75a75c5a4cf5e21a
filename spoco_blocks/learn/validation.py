"""Validation by what counts: predict a box, cluster it, score it against what is known there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import TypeGuard

import numpy as np
import torch

from spoco_blocks.clustering import Modes
from spoco_blocks.clustering.whole import segment
from spoco_blocks.grid import Box, Triple, triple
from spoco_blocks.kernels.contingency import Counts, Pairs, merge_tables
from spoco_blocks.kernels.scores import scores
from spoco_blocks.kernels.sparse_scores import sparse_scores
from spoco_blocks.learn.crops import Part, fit_patch
from spoco_blocks.learn.label_values import UNLABELLED
from spoco_blocks.learn.loader import Batch, Loader
from spoco_blocks.learn.places import Place, annotated, cluster_place, predict_place, read_places, tabulate
from spoco_blocks.learn.precision import autocast
from spoco_blocks.learn.recommend import object_distance, suited, suited_method
from spoco_blocks.learn.seeds import Purpose, generator
from spoco_blocks.learn.train import Training

# Fewer objects say nothing about which network is better.
OBJECTS_TO_SELECT_BY = 3
VOXELS_AT_MOST = 1_000_000
# Of the parts that train; they hold most of the annotated objects.
RECOMMENDED_FROM = 1_500_000
THRESHOLD = 0.3
# One crop for so many iterations between validations.
ITERATIONS_PER_CROP, CROPS_AT_MOST = 12, 8
# Part of the time of training that prediction and clustering may take, as far as it can be foreseen: a step passes a
# voxel through a network four times forward or the like, clustering a voxel takes about as long as predicting it.
SHARE, PASSES_PER_STEP, PASSES_PER_VALIDATION = 0.06, 4, 2


class Validation:
    """What a training run is judged by, read once.

    Parameters
    ----------
    parts : list of Part
        Training volumes. Their validation parts are scored; where no volume has one, the training parts.
    patch, stride : tuple of int
        Shape of a training patch; the network's stride.
    every : int
        Iterations between validations.
    batch : int
        Patches per iteration, which with `every` decides how many voxels may be spent.
    smallest_voxels : int or None
        Size of a small object, as clustering is told.

    Attributes
    ----------
    prefix : str
        "validation", or "training" where no objects were spared.
    known : list of Place
        What is known of each training part, for `recommend`.
    objects : int
        Annotated objects in the boxes.
    complete : bool
        Whether every voxel in the boxes is known, so that false segments can be told.
    """

    def __init__(
        self,
        parts: list[Part],
        patch: Triple,
        stride: Triple,
        every: int,
        batch: int,
        smallest_voxels: int | None = None,
    ) -> None:
        self.smallest_voxels = smallest_voxels
        spared = [replace(part, training=part.validation) for part in parts if _holds(part.validation, stride)]
        self.prefix = "validation" if spared else "training"
        budget = validation_voxels(patch, every, batch) // len(spared or parts)
        self.places = [place for part in spared or parts for place in read_places(part, budget, stride)]
        share = RECOMMENDED_FROM // len(parts)
        self.known = [place for part in parts for place in read_places(part, share, stride)]
        self.objects = sum(len(annotated(place)) for place in self.places)
        self.complete = not any((place.labels == UNLABELLED).any() for place in self.places)
        self.crops = read_crops(spared, patch, stride, every) if spared else []
        compile_kernels()

    @property
    def selects(self) -> bool:
        """Whether the scores can tell which network is better."""
        return self.prefix == "validation" and self.objects >= OBJECTS_TO_SELECT_BY

    @property
    def criterion(self) -> str:
        """The score that decides, higher is better."""
        return f"{self.prefix}_{'sbd' if self.complete else 'mean_iou'}"

    def __call__(self, training: Training) -> dict[str, float]:
        """Give loss terms and scores of g, each with the prefix in its name."""
        network = training.g.eval()
        tables, foreground, voxels = [], 0, 0
        scale, device, precision = training.objective.coordinate_scale, training.device, training.precision
        predictions = [predict_place(network, place, scale, device, precision) for place in self.places]
        distance = object_distance(training.pull, training.settings.loss)
        method = suited_method(suited(training.pull, network.plan), distance)
        for number, (place, predicted) in enumerate(zip(self.places, predictions, strict=True)):
            mask = predicted.foreground > THRESHOLD
            segments = cluster_place(predicted, place, network.plan, method, mask, self.smallest_voxels)
            tables.append(tabulate(place, segments, number))
            foreground, voxels = foreground + int(mask.sum()), voxels + mask.size
        values = self.losses(training) | self.scores(tables) | {"foreground_fraction": foreground / voxels}
        return {f"{self.prefix}_{name}": value for name, value in values.items()}

    def scores(self, tables: list[tuple[Pairs, Counts]]) -> dict[str, float]:
        """Score tables of all boxes together."""
        if not self.objects:
            return {}
        table = merge_tables(tables)
        found = sparse_scores(*table)
        values = {
            "recall": found.recall,
            "mean_iou": found.mean_iou,
            "over_segmentation": found.over_segmentation,
        }
        if self.complete:
            dense = scores(*table)
            values |= {"ap50": dense.ap50, "sbd": dense.sbd}
        return values

    @torch.no_grad()
    def losses(self, training: Training) -> dict[str, float]:
        """Give g's loss terms on the same crops every time, without consistency."""
        totals: dict[str, list[float]] = {}
        network = training.g.eval()
        for number, crop in enumerate(self.crops):
            with autocast(training.device, training.precision):
                output = network(crop.raw.to(training.device))[0]
            draws = generator(0, number, Purpose.VALIDATION)
            known = crop.labels[0].to(training.device).long()
            for name, value in training.objective(output, None, known, draws).items():
                totals.setdefault(name, []).append(float(value))
        return {name: float(np.mean(values)) for name, values in totals.items()}

    def collapsed(self, values: dict[str, float]) -> str | None:
        """Say whether nearly everything, or nearly nothing, was taken for foreground although it is not."""
        predicted = values[f"{self.prefix}_foreground_fraction"]
        labelled = sum(int((place.labels > 0).sum()) for place in self.places)
        known = labelled / sum(place.labels.size for place in self.places)
        if predicted > 0.99 > known:
            return "everything"
        return "nothing" if predicted < min(0.01, known) else None


def _holds(box: Box | None, stride: Triple) -> TypeGuard[Box]:
    """Tell whether there is a part to validate on, and the network fits into it."""
    return box is not None and all(extent >= step for extent, step in zip(box.shape, stride, strict=True))


def validation_voxels(patch: Triple, every: int, batch: int) -> int:
    """Give how many voxels a validation may predict and cluster."""
    affordable = SHARE * every * batch * prod(patch) * PASSES_PER_STEP / PASSES_PER_VALIDATION
    return min(VOXELS_AT_MOST, max(round(affordable), 2 * prod(patch)))


def read_crops(parts: list[Part], patch: Triple, stride: Triple, every: int) -> Sequence[Batch]:
    """Read a few crops of validation parts."""
    shapes = [fit_patch(patch, stride, part.training) for part in parts]
    shape = triple(min(extents) for extents in zip(*shapes, strict=True))
    loader = Loader(lambda: parts, shape, batch=1, centred=0.0, seed=0, workers=0)
    return list(loader.batches(0, min(CROPS_AT_MOST, max(1, every // ITERATIONS_PER_CROP))))


def compile_kernels() -> None:
    """Let numba compile what validation needs, so that the first one takes no longer than the others."""
    embeddings = np.random.default_rng(0).normal(0, 0.1, (3, 8, 8, 8)).astype(np.float32)
    segments = segment(Modes(), embeddings, np.ones((8, 8, 8), bool))
    tabulate(Place(embeddings, np.ones((8, 8, 8), np.int32), False), segments, 0)
