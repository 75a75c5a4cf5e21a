"""Scores against some annotated objects, beside the obvious computation."""

from __future__ import annotations

import numpy as np
import pytest

from spoco_blocks.kernels.contingency import contingency
from spoco_blocks.kernels.sparse_scores import sparse_scores


def oracle(truth, segments):
    best, inside = [], 0
    for thing in range(1, truth.max() + 1):
        mask = truth == thing
        overlaps = [0.0]
        for part in range(1, segments.max() + 1):
            other = segments == part
            overlaps.append((mask & other).sum() / (mask | other).sum())
            inside += other.any() and (mask & other).sum() > other.sum() / 2
        best.append(max(overlaps))
    return np.mean(np.array(best) > 0.5), np.mean(best), inside / truth.max()


@pytest.mark.parametrize("seed", range(8))
def test_like_the_oracle(seed):
    rng = np.random.default_rng(seed)
    blocks = np.kron(np.arange(1, 28).reshape(3, 3, 3), np.ones((4, 4, 4), int))
    truth = np.where(blocks <= 9, blocks, 0)
    segments = np.where(rng.random(blocks.shape) < 0.3 * rng.random(), 0, np.roll(blocks, rng.integers(3), 1))
    segments[segments == 5] = 6  # two objects in one segment
    segments[:2][segments[:2] == 1] = 40  # an object in two pieces
    found = sparse_scores(*contingency(truth.astype(np.uint32), segments.astype(np.uint32)))
    assert (found.recall, found.mean_iou, found.over_segmentation) == pytest.approx(oracle(truth, segments))
    assert found.n_truth == 9


def test_unlabelled_objects_do_not_count_but_what_spills_over_does():
    truth, segments = np.zeros((1, 10, 10), np.uint32), np.zeros((1, 10, 10), np.uint32)
    truth[0, :4, :4] = segments[0, :4, :4] = 1
    segments[0, 6:, 6:] = 2
    found = sparse_scores(*contingency(truth, segments))
    assert (found.recall, found.mean_iou, found.over_segmentation) == (1, 1, 1)
    segments[0, :4] = 1
    assert sparse_scores(*contingency(truth, segments)).mean_iou == pytest.approx(0.4)


def test_nothing_annotated_and_nothing_found():
    nothing = np.zeros((2, 2, 2), np.uint32)
    assert sparse_scores(*contingency(nothing, nothing)).n_truth == 0
    found = sparse_scores(*contingency(nothing + 1, nothing))
    assert (found.recall, found.mean_iou, found.over_segmentation, found.n_truth) == (0, 0, 0, 1)
