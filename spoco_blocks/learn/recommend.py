"""What a trained network is best used with: the clustering and the threshold that suit the annotated objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spoco_blocks.clustering import METHODS
from spoco_blocks.kernels.contingency import merge_tables
from spoco_blocks.kernels.sparse_scores import sparse_scores
from spoco_blocks.learn.losses import BACKGROUND
from spoco_blocks.learn.network import EmbeddingNetwork
from spoco_blocks.learn.places import Place, annotated, cluster_place, predict_place, tabulate

THRESHOLDS = (0.2, 0.3, 0.5, 0.7, 0.85)
# What is taken where nothing speaks against it: another choice has to be better by more than noise.
DEFAULT_KIND, DEFAULT_THRESHOLD, NOISE = "modes", 0.3, 0.02


@dataclass(frozen=True)
class Recommendation:
    """How to use a network.

    Attributes
    ----------
    kind : str
        Name of the clustering method.
    foreground_threshold : float
        Probability above which a voxel is foreground.
    score : float
        Mean IoU of the annotated objects with their best segments, times the part of the known background that is left
        empty; 0 where nothing could be tried.
    """

    kind: str = DEFAULT_KIND
    foreground_threshold: float = DEFAULT_THRESHOLD
    score: float = 0.0


def recommend(
    network: EmbeddingNetwork,
    places: Sequence[Place],
    scale: tuple[float, float, float] | None,
    device: str = "cpu",
) -> Recommendation:
    """Try the methods that need no sampling, with several thresholds, on annotated places.

    Parameters
    ----------
    network : EmbeddingNetwork
        In evaluation mode.
    places : sequence of Place
        What is known; places without an annotated object tell about background only.
    scale : tuple of float or None
        Voxels over which position adds 1 to the embedding.
    device : str
        Where the network is.

    Notes
    -----
    Unlabelled objects count neither for nor against. Each place is predicted once and clustered ten times.
    """
    kinds = (DEFAULT_KIND, "mutex") if network.plan.offsets else (DEFAULT_KIND,)
    if not any(len(annotated(place)) for place in places):
        return Recommendation()
    predicted = [predict_place(network, place, scale, device) for place in places]
    found = []
    for kind in kinds:
        method = METHODS[kind]()
        for threshold in THRESHOLDS:
            tables, empty, known = [], 0, 0
            for number, (place, prediction) in enumerate(zip(places, predicted, strict=True)):
                mask, background = prediction.foreground > threshold, place.labels == BACKGROUND
                segments = cluster_place(prediction, place, network.plan, method, mask)
                tables.append(tabulate(place, segments, number))
                empty += int(np.count_nonzero(background & ~mask))
                known += int(np.count_nonzero(background))
            score = sparse_scores(*merge_tables(tables)).mean_iou * (empty / known if known else 1.0)
            preferred = (kind == DEFAULT_KIND) + (threshold == DEFAULT_THRESHOLD)
            found.append((score + NOISE * preferred, Recommendation(kind, threshold, score)))
    return max(found, key=lambda pair: pair[0])[1]
