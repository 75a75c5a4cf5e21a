"""Boxes that training is judged by: predicted, clustered, and compared with what is known there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from spoco_blocks.clustering import Affinities, Context, Method
from spoco_blocks.clustering.whole import segment
from spoco_blocks.grid import Box, Triple, triple
from spoco_blocks.kernels.contingency import Counts, Pairs, contingency
from spoco_blocks.learn.crops import Part
from spoco_blocks.learn.label_values import IGNORE
from spoco_blocks.learn.losses import MIN_VOXELS
from spoco_blocks.learn.network_plan import NetworkPlan
from spoco_blocks.learn.predict import Prediction, predict

# At least, of one of several boxes.
BOX_VOXELS = 64**3


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


def read_places(part: Part, voxels: int, stride: Triple) -> list[Place]:
    """Read so many voxels of a part: all of it, or boxes around annotated objects that lie evenly in the list of them.

    The middle of a large volume may well hold no annotated object. It is read where no position of one is known, as in
    parts that were spared for validation.
    """
    box, anchors = part.training, part.volume.anchors
    voxels_of = [anchors[number][len(anchors[number]) // 2] for number in sorted(anchors)]
    middles = [voxel for voxel in voxels_of if ((voxel >= box.start) & (voxel < box.stop)).all()]
    if box.size <= voxels or part.volume.raw.meta.independent_images or not middles:
        return [read_place(part, voxels, stride)]
    count = max(1, min(len(middles), voxels // BOX_VOXELS))
    shape = np.array(central_box(box, voxels // count, stride, False).shape)
    places = []
    for number in np.linspace(0, len(middles) - 1, count).round().astype(int):
        start = np.clip(middles[number] - shape // 2, box.start, np.array(box.stop) - shape)
        places.append(Place(*part.volume.read(Box(triple(start), triple(start + shape))), planar=False))
    return places


def read_place(part: Part, voxels: int, stride: Triple) -> Place:
    """Read the middle of a part; of independent images the middles of evenly spaced ones, chosen ones only."""
    box = part.training
    if not part.volume.raw.meta.independent_images:
        return Place(*part.volume.read(central_box(box, voxels, stride, False)), planar=False)
    last = box.stop[0]
    images = [n for n in part.volume.images or range(box.start[0], last) if box.start[0] <= n < last]
    middle = central_box(Box((0, *box.start[1:]), (1, *box.stop[1:])), voxels, stride, True)
    count = max(1, min(len(images), voxels // middle.size))
    taken = [images[i] for i in np.linspace(0, len(images) - 1, count).round().astype(int)]
    read = [part.volume.read(Box((n, *middle.start[1:]), (n + 1, *middle.stop[1:]))) for n in taken]
    return Place(np.concatenate([raw for raw, _ in read], 1), np.concatenate([known for _, known in read]), planar=True)


def annotated(place: Place) -> NDArray[np.int32]:
    """List the objects of a place that are not cut to a few voxels."""
    ids, counts = np.unique(place.labels[place.labels > 0], return_counts=True)
    return np.asarray(ids[counts >= MIN_VOXELS])


def predict_place(
    network: torch.nn.Module,
    place: Place,
    scale: tuple[float, float, float] | None,
    device: str = "cpu",
    precision: str = "float32",
) -> Prediction:
    """Predict a place in evaluation mode; coordinates over `scale` voxels are added to the embeddings."""
    predicted = predict(network, place.raw, device=device, bfloat16=precision == "bfloat16")  # type: ignore[arg-type]
    if scale is not None:
        for axis, voxels in enumerate(scale):
            positions = (np.arange(place.raw.shape[axis + 1]) / voxels).astype(np.float32)
            predicted.embeddings[axis] += positions.reshape([-1 if a == axis else 1 for a in range(3)])
    return predicted


def cluster_place(
    predicted: Prediction,
    place: Place,
    plan: NetworkPlan,
    method: Method,
    mask: NDArray[np.bool_],
    smallest_voxels: int | None = None,
) -> NDArray[np.uint32]:
    """Segment a prediction, independent images one by one: (z, y, x)."""
    offsets = np.array(plan.offsets, np.int64).reshape(-1, 3)
    values = np.rint(predicted.affinities * 255).astype(np.uint8)
    parts = [slice(z, z + 1) for z in range(len(mask))] if place.planar else [slice(None)]
    segments = np.zeros(mask.shape, np.uint32)
    for part in parts:
        affinities = Affinities(values[:, part], offsets, plan.neighbours) if plan.offsets else None
        context = Context(affinities=affinities, smallest_voxels=smallest_voxels, step=plan.step)
        found = segment(method, predicted.embeddings[:, part], mask[part], context)
        segments[part] = np.where(found > 0, found + segments.max(), 0)
    return segments


def tabulate(place: Place, segments: NDArray[np.uint32], number: int) -> tuple[Pairs, Counts]:
    """Count which object meets which segment; ids are made unique over the places by their number."""
    counted = place.labels != IGNORE
    truth = np.where(np.isin(place.labels, annotated(place)), place.labels, 0)[counted].astype(np.uint64)
    pairs, counts = contingency(truth, segments[counted].astype(np.uint64))
    return np.where(pairs > 0, pairs + (np.uint64(number) << np.uint64(40)), pairs), counts
