"""Scores of a segmentation against the truth, all from one contingency table.

Id 0 is background on both sides. Objects are compared with objects by AP, SBD, PQ and the count; voxels of the truth's
objects by VOI and ARE, where predicted background counts as one more segment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# k / 20 rather than steps of 0.05: the nearest float64, so that an IoU of exactly 11/20 is not above 0.55.
THRESHOLDS = tuple(k / 20 for k in range(10, 20))

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Scores of one segmentation; the fields are the keys of scores.json.

    Attributes
    ----------
    ap50, ap75 : float
        Average precision TP / (TP + FP + FN); an object is found when its IoU with a segment is above 0.5 or 0.75.
    map : float
        Mean average precision over the thresholds 0.5, 0.55, ... 0.95.
    sbd : float
        Symmetric best Dice: the smaller of the two mean best Dice overlaps.
    dic : int
        Absolute difference in count.
    voi_split, voi_merge : float
        H(segments | truth) and H(truth | segments) over the truth's foreground, in bits.
    are : float
        Adapted Rand error over the truth's foreground.
    pq : float
        Panoptic quality: mean IoU of found objects times `f1_50`.
    n_segments, n_truth : int
        Number of segments and of truth objects.
    f1_50 : float
        2 TP / (2 TP + FP + FN) at an IoU above 0.5.
    cremi : float
        Geometric mean of VOI (split + merge) and ARE.
    voi_unit : str
        Always "bits".
    """

    ap50: float
    ap75: float
    map: float
    sbd: float
    dic: int
    voi_split: float
    voi_merge: float
    are: float
    pq: float
    n_segments: int
    n_truth: int
    f1_50: float
    cremi: float
    voi_unit: str = "bits"


@dataclass(frozen=True)
class _Overlaps:
    """Every touching pair of truth object and segment, as indices into the two lists of sizes."""

    truth: NDArray[np.int64]
    segment: NDArray[np.int64]
    voxels: Floats
    truth_sizes: Floats
    segment_sizes: Floats


def scores(pairs: NDArray[Any], counts: NDArray[Any], min_voxels: int = 0) -> Scores:
    """Score a segmentation.

    With nothing to find and nothing found the segmentation is perfect; where only one side is empty, the overlap
    scores are 0. Without truth voxels VOI and ARE are 0: there is nothing to get wrong.

    Parameters
    ----------
    pairs, counts : numpy.ndarray
        A table as `contingency` gives it.
    min_voxels : int
        Truth objects under this size are left out: not missed, and segments that lie mostly in them are not false.
    """
    pairs, counts = _without_small(np.asarray(pairs, np.uint64), np.asarray(counts, np.int64), min_voxels)
    overlaps = _overlaps(pairs, counts)
    n_truth, n_segments = len(overlaps.truth_sizes), len(overlaps.segment_sizes)
    iou = overlaps.voxels / _union(overlaps)
    precision = [_average_precision(int((iou > t).sum()), n_truth, n_segments) for t in THRESHOLDS]
    found = iou[iou > 0.5]
    objects = n_truth + n_segments
    split, merge, error = _voxel_scores(pairs, counts)
    return Scores(
        ap50=precision[0],
        ap75=precision[5],
        map=float(np.mean(precision)),
        sbd=_best_dice(overlaps),
        dic=abs(n_segments - n_truth),
        voi_split=split,
        voi_merge=merge,
        are=error,
        # SQ · RQ = (ΣIoU / TP) · (2 TP / (n_truth + n_segments))
        pq=2 * float(found.sum()) / objects if objects else 1.0,
        n_segments=n_segments,
        n_truth=n_truth,
        f1_50=2 * len(found) / objects if objects else 1.0,
        cremi=float(np.sqrt((split + merge) * error)),
    )


def _without_small(
    pairs: NDArray[np.uint64], counts: NDArray[np.int64], min_voxels: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Drop the voxels of small truth objects, and let segments that lie mostly in them be background elsewhere."""
    ids, index = np.unique(pairs[:, 0], return_inverse=True)
    sizes = _sizes(index, counts, len(ids))
    small = ((sizes < min_voxels) & (ids > 0))[index]
    if not small.any():
        return pairs, counts
    ids, index = np.unique(pairs[:, 1], return_inverse=True)
    inside = _sizes(index, counts * small, len(ids))
    ignored = 2 * inside > _sizes(index, counts, len(ids))
    segments = np.where(ignored[index], np.uint64(0), pairs[:, 1])
    kept = np.stack([pairs[:, 0], segments], axis=1)[~small]
    if not len(kept):
        return kept, counts[~small]
    kept, row = np.unique(kept, axis=0, return_inverse=True)
    return kept, _sizes(row.ravel(), counts[~small], len(kept)).astype(np.int64)


def _overlaps(pairs: NDArray[np.uint64], counts: NDArray[np.int64]) -> _Overlaps:
    truth, segment = pairs[:, 0] > 0, pairs[:, 1] > 0
    truth_ids, truth_index = np.unique(pairs[truth, 0], return_inverse=True)
    segment_ids, segment_index = np.unique(pairs[segment, 1], return_inverse=True)
    both = truth & segment
    return _Overlaps(
        truth=truth_index[both[truth]].astype(np.int64),
        segment=segment_index[both[segment]].astype(np.int64),
        voxels=counts[both].astype(np.float64),
        truth_sizes=_sizes(truth_index, counts[truth], len(truth_ids)),
        segment_sizes=_sizes(segment_index, counts[segment], len(segment_ids)),
    )


def _sum_of_sizes(overlaps: _Overlaps) -> Floats:
    return overlaps.truth_sizes[overlaps.truth] + overlaps.segment_sizes[overlaps.segment]


def _union(overlaps: _Overlaps) -> Floats:
    return _sum_of_sizes(overlaps) - overlaps.voxels


def _average_precision(found: int, n_truth: int, n_segments: int) -> float:
    # Above an IoU of 0.5 a truth object and a segment have at most one partner each: FN and FP follow from the counts.
    total = n_truth + n_segments - found
    return found / total if total else 1.0


def _best_dice(overlaps: _Overlaps) -> float:
    n_truth, n_segments = len(overlaps.truth_sizes), len(overlaps.segment_sizes)
    if not n_truth or not n_segments:
        return float(n_truth == n_segments)
    dice = 2 * overlaps.voxels / _sum_of_sizes(overlaps)
    of_truth, of_segments = np.zeros(n_truth), np.zeros(n_segments)
    np.maximum.at(of_truth, overlaps.truth, dice)
    np.maximum.at(of_segments, overlaps.segment, dice)
    return float(min(of_truth.mean(), of_segments.mean()))


def _voxel_scores(pairs: NDArray[np.uint64], counts: NDArray[np.int64]) -> tuple[float, float, float]:
    """VOI split, VOI merge and adapted Rand error over the truth's foreground."""
    foreground = pairs[:, 0] > 0
    joint = counts[foreground].astype(np.float64)
    total = joint.sum()
    if not total:
        return 0.0, 0.0, 0.0
    ids, truth = np.unique(pairs[foreground, 0], return_inverse=True)
    truth_sizes = _sizes(truth, joint, len(ids))
    ids, segment = np.unique(pairs[foreground, 1], return_inverse=True)
    segment_sizes = _sizes(segment, joint, len(ids))
    split = float((joint * np.log2(truth_sizes[truth] / joint)).sum() / total)
    merge = float((joint * np.log2(segment_sizes[segment] / joint)).sum() / total)
    # F = 2 PR / (P + R) = 2 · voxel pairs together in both / (together in the truth + together in the segments)
    both = float((joint**2).sum() - total)
    either = float((truth_sizes**2).sum() + (segment_sizes**2).sum() - 2 * total)
    return split, merge, 1 - 2 * both / either if either > 0 else 0.0


def _sizes(index: NDArray[np.int64], voxels: NDArray[Any], number: int) -> Floats:
    return np.bincount(index, voxels, number).astype(np.float64)
