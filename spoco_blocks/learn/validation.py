"""Validation by what counts: predict a box, cluster it, score it against what is known there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from spoco_blocks.clustering import Modes
from spoco_blocks.clustering.whole import segment
from spoco_blocks.grid import Box, Triple, triple
from spoco_blocks.kernels.contingency import Counts, Pairs, contingency, merge_tables
from spoco_blocks.kernels.scores import scores
from spoco_blocks.kernels.sparse_scores import sparse_scores
from spoco_blocks.learn.crops import Part, fit_patch
from spoco_blocks.learn.loader import Batch, Loader
from spoco_blocks.learn.losses import IGNORE, MIN_VOXELS, UNLABELLED
from spoco_blocks.learn.objective import Objective
from spoco_blocks.learn.precision import autocast
from spoco_blocks.learn.predict import predict
from spoco_blocks.learn.seeds import Purpose, generator
from spoco_blocks.learn.train import Training
from spoco_blocks.settings.segmentation import SegmentationSettings

# Fewer objects say nothing about which network is better.
OBJECTS_TO_SELECT_BY = 3
VOXELS_AT_MOST = 1_000_000
THRESHOLD: float = SegmentationSettings.model_fields["foreground_threshold"].default
# One crop for so many iterations between validations.
ITERATIONS_PER_CROP, CROPS_AT_MOST = 12, 8
# Part of the time of training that prediction and clustering may take, as far as it can be foreseen: a step passes a
# voxel through a network four times forward or the like, clustering a voxel takes about as long as predicting it.
SHARE, PASSES_PER_STEP, PASSES_PER_VALIDATION = 0.06, 4, 2


@dataclass(frozen=True, eq=False)
class Place:
    """A box that is predicted and scored.

    Attributes
    ----------
    raw : (c, z, y, x) float32
        Normalised raw data.
    labels : (z, y, x) int32
        > 0 objects, 0 unlabelled, -1 background, -2 ignore.
    planar : bool
        Whether z counts independent images.
    """

    raw: NDArray[np.float32]
    labels: NDArray[np.int32]
    planar: bool


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

    Attributes
    ----------
    prefix : str
        "validation", or "training" where no objects were spared.
    objects : int
        Annotated objects in the boxes.
    complete : bool
        Whether every voxel in the boxes is known, so that false segments can be told.
    """

    def __init__(self, parts: list[Part], patch: Triple, stride: Triple, every: int, batch: int) -> None:
        spared = [replace(part, training=part.validation) for part in parts if part.validation is not None]
        self.prefix = "validation" if spared else "training"
        budget = validation_voxels(patch, every, batch) // len(spared or parts)
        self.places = [read_place(part, budget, stride) for part in spared or parts]
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
        for number, place in enumerate(self.places):
            segments, mask = segment_place(network, place, training.objective, training.device, training.precision)
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


def validation_voxels(patch: Triple, every: int, batch: int) -> int:
    """Give how many voxels a validation may predict and cluster."""
    affordable = SHARE * every * batch * prod(patch) * PASSES_PER_STEP / PASSES_PER_VALIDATION
    return min(VOXELS_AT_MOST, max(round(affordable), 2 * prod(patch)))


def central_box(box: Box, voxels: int, stride: Triple, planar: bool) -> Box:
    """Give the middle of a box, as close to a cube as fits in so many voxels; of independent images whole ones first.

    Its shape is a multiple of the stride, so that nothing is padded.
    """
    shape, left = [1, 1, 1], float(voxels)
    order = sorted(range(3), key=lambda axis: (planar and axis == 0, box.shape[axis]))
    for place, axis in enumerate(order):
        sharing = max(1, (2 if planar else 3) - place)
        edge, step = min(box.shape[axis], int(left ** (1 / sharing) + 1e-6)), stride[axis]
        shape[axis] = max(edge // step * step, min(step, box.shape[axis]))
        left /= shape[axis]
    start = triple(a + (extent - s) // 2 for a, extent, s in zip(box.start, box.shape, shape, strict=True))
    return Box(start, triple(a + s for a, s in zip(start, shape, strict=True)))


def read_place(part: Part, voxels: int, stride: Triple) -> Place:
    """Read the middle of a part."""
    planar = part.volume.raw.meta.independent_images
    raw, labels = part.volume.read(central_box(part.training, voxels, stride, planar))
    return Place(raw, labels, planar)


def read_crops(parts: list[Part], patch: Triple, stride: Triple, every: int) -> Sequence[Batch]:
    """Read a few crops of validation parts."""
    shapes = [fit_patch(patch, stride, part.training) for part in parts]
    shape = triple(min(extents) for extents in zip(*shapes, strict=True))
    loader = Loader(lambda: parts, shape, batch=1, centred=0.0, seed=0, workers=0)
    return list(loader.batches(0, min(CROPS_AT_MOST, max(1, every // ITERATIONS_PER_CROP))))


def annotated(place: Place) -> NDArray[np.int32]:
    """List the objects of a place that are not cut to a few voxels."""
    ids, counts = np.unique(place.labels[place.labels > 0], return_counts=True)
    return np.asarray(ids[counts >= MIN_VOXELS])


def segment_place(
    network: torch.nn.Module, place: Place, objective: Objective, device: str, precision: str
) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """Segment with the default method: segments and foreground, both (z, y, x)."""
    predicted = predict(network, place.raw, device=device, bfloat16=precision == "bfloat16")  # type: ignore[arg-type]
    embeddings, mask = predicted.embeddings, predicted.foreground > THRESHOLD
    if objective.coordinate_scale is not None:
        for axis, scale in enumerate(objective.coordinate_scale):
            positions = (np.arange(mask.shape[axis]) / scale).astype(np.float32)
            embeddings[axis] += positions.reshape([-1 if a == axis else 1 for a in range(3)])
    if not place.planar:
        return segment(Modes(), embeddings, mask), mask
    segments = np.zeros(mask.shape, np.uint32)
    for z in range(len(mask)):
        image = segment(Modes(), embeddings[:, z : z + 1], mask[z : z + 1])
        segments[z] = np.where(image[0] > 0, image[0] + segments.max(), 0)
    return segments, mask


def compile_kernels() -> None:
    """Let numba compile what validation needs, so that the first one takes no longer than the others."""
    embeddings = np.random.default_rng(0).normal(0, 0.1, (3, 8, 8, 8)).astype(np.float32)
    segments = segment(Modes(), embeddings, np.ones((8, 8, 8), bool))
    tabulate(Place(embeddings, np.ones((8, 8, 8), np.int32), False), segments, 0)


def tabulate(place: Place, segments: NDArray[np.uint32], number: int) -> tuple[Pairs, Counts]:
    """Count which object meets which segment; ids are made unique over the places by their number."""
    counted = place.labels != IGNORE
    truth = np.where(np.isin(place.labels, annotated(place)), place.labels, 0)[counted].astype(np.uint64)
    pairs, counts = contingency(truth, segments[counted].astype(np.uint64))
    return np.where(pairs > 0, pairs + (np.uint64(number) << np.uint64(40)), pairs), counts
