"""Scores against objects of which only some are known: voxels that nobody labelled count neither for nor against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SparseScores:
    """How annotated objects were found; all zero without any.

    Attributes
    ----------
    recall : float
        Part of the annotated objects whose best segment has an IoU above 0.5.
    mean_iou : float
        Mean over annotated objects of the IoU with the best segment.
    over_segmentation : float
        Segments with more than half of their voxels inside one object, per object; 1 where all is well.
    n_truth : int
        Number of annotated objects.
    """

    recall: float
    mean_iou: float
    over_segmentation: float
    n_truth: int


def sparse_scores(pairs: NDArray[Any], counts: NDArray[Any]) -> SparseScores:
    """Score segments against the annotated objects.

    Parameters
    ----------
    pairs, counts : numpy.ndarray
        A table as `contingency` gives it, of all voxels: 0 in the truth is everything that is not an annotated object,
        so that a segment which spills out of its object has a low IoU.

    Returns
    -------
    SparseScores
        What can be said without knowing the other objects.
    """
    pairs, voxels = np.asarray(pairs, np.uint64), np.asarray(counts, np.float64)
    truth_ids, truth = np.unique(pairs[:, 0], return_inverse=True)
    segment = np.unique(pairs[:, 1], return_inverse=True)[1]
    truth_sizes, segment_sizes = np.bincount(truth, voxels), np.bincount(segment, voxels)
    n_truth = int(np.count_nonzero(truth_ids))
    if not n_truth:
        return SparseScores(0.0, 0.0, 0.0, 0)
    both = (pairs > 0).all(axis=1)
    truth, segment, voxels = truth[both], segment[both], voxels[both]
    best = np.zeros(len(truth_ids))
    np.maximum.at(best, truth, voxels / (truth_sizes[truth] + segment_sizes[segment] - voxels))
    best = best[truth_ids > 0]
    return SparseScores(
        recall=float((best > 0.5).mean()),
        mean_iou=float(best.mean()),
        over_segmentation=int((2 * voxels > segment_sizes[segment]).sum()) / n_truth,
        n_truth=n_truth,
    )
