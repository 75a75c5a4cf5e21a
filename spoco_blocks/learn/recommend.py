"""What a trained network is best used with: the clustering and the threshold that suit the annotated objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.clustering import METHODS, Method, Modes
from spoco_blocks.clustering.find_fragments import MERGE_FACTOR
from spoco_blocks.clustering.modes import OBJECT_DISTANCE
from spoco_blocks.kernels.contingency import merge_tables
from spoco_blocks.kernels.sparse_scores import sparse_scores
from spoco_blocks.learn.label_values import BACKGROUND
from spoco_blocks.learn.network import EmbeddingNetwork
from spoco_blocks.learn.network_plan import NetworkPlan
from spoco_blocks.learn.places import Place, annotated, cluster_place, predict_place, tabulate
from spoco_blocks.learn.supervision import near
from spoco_blocks.settings.loss import LossSettings

THRESHOLDS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85)
DEFAULT_KIND, DEFAULT_THRESHOLD = "modes", 0.3
# The lowest threshold that reaches this part of the best score is taken: the network is surer of the objects that it
# has learnt than of others, which a threshold that suits the learnt ones would make too small, or lose.
ENOUGH = 0.87
# Modes need the embedding of an object to be about one point; trained on compact objects this ends below 0.05, on
# neurites and tissue above 0.5.
SPREAD = 0.2
# Voxels; more than a shell.
FAR = 4


@dataclass(frozen=True)
class Recommendation:
    """How to use a network.

    Attributes
    ----------
    kind : str
        Name of the clustering method.
    foreground_threshold : float
        Probability above which a voxel is foreground.
    object_distance : float
        How far embeddings of one object lie apart, by the pull term.
    score : float
        Mean IoU of the annotated objects with their best segments, times the part of the known background that is left
        empty; 0 where nothing could be tried.
    """

    kind: str = DEFAULT_KIND
    foreground_threshold: float = DEFAULT_THRESHOLD
    score: float = 0.0
    object_distance: float = OBJECT_DISTANCE


def recommend(
    network: EmbeddingNetwork,
    places: Sequence[Place],
    scale: tuple[float, float, float] | None,
    *,
    pull: float,
    distance: float = OBJECT_DISTANCE,
    smallest_voxels: int | None = None,
    device: str = "cpu",
) -> Recommendation:
    """Choose the method by how far objects spread in embedding space, the threshold by trying.

    Parameters
    ----------
    network : EmbeddingNetwork
        In evaluation mode.
    places : sequence of Place
        What is known; places without an annotated object tell about background only.
    scale : tuple of float or None
        Voxels over which position adds 1 to the embedding.
    pull : float
        What the pull term ended at, unweighted.
    distance : float
        How far embeddings of one object lie apart; see `object_distance`.
    smallest_voxels : int or None
        Size of a small object.
    device : str
        Where the network is.

    Notes
    -----
    The method is not chosen by trying, nor by the spread on these places: the network has seen them, and finds the
    annotated neurites well by embeddings that are no points elsewhere. The pull of training is that of warped and
    changed views. Unlabelled objects count neither for nor against. Each place is predicted once and clustered once
    for each threshold.
    """
    if not any(len(annotated(place)) for place in places):
        return Recommendation(suited(pull, network.plan), object_distance=distance)
    predicted = [predict_place(network, place, scale, device) for place in places]
    kind, found = suited(pull, network.plan), []
    method = suited_method(kind, distance)
    for threshold in THRESHOLDS:
        tables, empty, known = [], 0, 0
        for number, (place, prediction) in enumerate(zip(places, predicted, strict=True)):
            mask, background = prediction.foreground > threshold, far_background(place)
            segments = cluster_place(prediction, place, network.plan, method, mask, smallest_voxels)
            tables.append(tabulate(place, segments, number))
            empty += int(np.count_nonzero(background & ~mask))
            known += int(np.count_nonzero(background))
        score = sparse_scores(*merge_tables(tables)).mean_iou * (empty / known if known else 1.0)
        found.append(Recommendation(kind, threshold, score, distance))
    best = max(advice.score for advice in found)
    if not best:
        return Recommendation(kind, object_distance=distance)
    return next(advice for advice in found if advice.score >= ENOUGH * best)


def far_background(place: Place) -> NDArray[np.bool_]:
    """Tell where known background is away from annotated objects: nearby it is part of their IoU already."""
    close = near(place.labels > 0, (0 if place.planar else FAR, FAR, FAR))
    return np.asarray((place.labels == BACKGROUND) & ~close)


def object_distance(pull: float, loss: LossSettings) -> float:
    """Give how far embeddings of one object lie apart: twice the margin of the pull term and what is beyond it.

    The pull term is the mean square of what is beyond. At most so far that nothing is merged that is farther apart than
    half way to the next object.
    """
    return min(2 * (loss.delta_var + math.sqrt(max(0.0, pull))), loss.delta_dist / MERGE_FACTOR)


def suited_method(kind: str, distance: float) -> Method:
    """Give a clustering method with the distances that suit."""
    method = METHODS[kind]()
    return method.suited(distance) if isinstance(method, Modes) else method


def suited(pull: float, plan: NetworkPlan) -> str:
    """Name the method that suits: mutex where objects are no points in embedding space, and for 2D data.

    In 2D blended embeddings between two objects are a large part of both; affinities say more surely where they end.
    """
    flat = all(offset[0] == 0 for offset in plan.offsets)
    return "mutex" if plan.offsets and (flat or pull > SPREAD) else DEFAULT_KIND
