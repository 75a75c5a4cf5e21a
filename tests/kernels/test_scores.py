from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.metrics import adapted_rand_error, variation_of_information

from spoco_blocks.kernels.contingency import contingency
from spoco_blocks.kernels.scores import scores

PERFECT = {"ap50": 1, "ap75": 1, "map": 1, "sbd": 1, "dic": 0, "voi_split": 0, "voi_merge": 0, "are": 0, "pq": 1}


@st.composite
def label_pairs(draw):
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=8))
    truth = draw(hnp.arrays(np.uint32, shape, elements=st.integers(0, 4)))
    changed = draw(hnp.arrays(np.bool_, shape, elements=st.booleans()))
    other = draw(hnp.arrays(np.uint32, shape, elements=st.integers(0, 5)))
    return truth, np.where(changed & draw(st.booleans()), other, truth * np.uint32(7))


def masks(labels):
    return [labels == i for i in np.unique(labels) if i]


def of(truth, segments, **options):
    return scores(*contingency(truth, segments), **options)


def slow_object_scores(truth, segments):
    a, b = masks(truth), masks(segments)
    if not a or not b:
        same = float(len(a) == len(b))
        return {"ap50": same, "ap75": same, "map": same, "sbd": same, "pq": same, "f1_50": same}
    iou = np.array([[(m & n).sum() / (m | n).sum() for n in b] for m in a])
    dice = np.array([[2 * (m & n).sum() / (m.sum() + n.sum()) for n in b] for m in a])

    def precision(t):
        true_positives = (iou > t).any(axis=1).sum()
        false_negatives = len(a) - true_positives
        false_positives = (~(iou > t).any(axis=0)).sum()
        return true_positives / (true_positives + false_positives + false_negatives)

    hits = iou[iou > 0.5]
    recognition = len(hits) / (len(hits) + 0.5 * (len(a) - len(hits)) + 0.5 * (len(b) - len(hits)))
    return {
        "ap50": precision(0.5),
        "ap75": precision(0.75),
        "map": np.mean([precision(round(0.5 + 0.05 * k, 2)) for k in range(10)]),
        "sbd": min(dice.max(axis=1).mean(), dice.max(axis=0).mean()),
        "pq": hits.mean() * recognition if len(hits) else 0.0,
        "f1_50": recognition,
    }


@given(label_pairs())
@settings(max_examples=120, deadline=None)
def test_object_scores_equal_the_matrix_of_masks(labels):
    truth, segments = labels
    got = asdict(of(truth, segments))
    for name, value in slow_object_scores(truth, segments).items():
        assert got[name] == pytest.approx(value), name
    assert got["n_truth"] == len(masks(truth))
    assert got["n_segments"] == len(masks(segments))
    assert got["dic"] == abs(got["n_truth"] - got["n_segments"])


@given(label_pairs())
@settings(max_examples=120, deadline=None)
def test_voxel_scores_equal_scikit_image(labels):
    truth, segments = labels
    got = of(truth, segments)
    if not truth.any():
        assert (got.voi_split, got.voi_merge, got.are) == (0, 0, 0)
        return
    foreground = truth > 0
    # a shift by one lets scikit-image see predicted background as one more segment
    split, merge = variation_of_information(truth[foreground], segments[foreground] + 1)
    assert got.voi_split == pytest.approx(split, abs=1e-9)
    assert got.voi_merge == pytest.approx(merge, abs=1e-9)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = adapted_rand_error(truth, segments, ignore_labels=(0,))[0]
    assert got.are == pytest.approx(error, abs=1e-9) if np.isfinite(error) else got.are == 0
    assert got.cremi == pytest.approx(np.sqrt((got.voi_split + got.voi_merge) * got.are))


@given(label_pairs(), st.integers(0, 12))
@settings(max_examples=80, deadline=None)
def test_small_objects_are_left_out(labels, min_voxels):
    truth, segments = labels
    small = [m for m in masks(truth) if m.sum() < min_voxels]
    dropped = np.any(small, axis=0) if small else np.zeros(truth.shape, bool)
    cleaned = segments.copy()
    for mask in masks(segments):
        if 2 * (mask & dropped).sum() > mask.sum():
            cleaned[mask] = 0
    expected = of(truth[~dropped], cleaned[~dropped])
    assert asdict(of(truth, segments, min_voxels=min_voxels)) == pytest.approx(asdict(expected))


def test_split_and_merge_are_told_apart():
    truth = np.repeat(np.array([1, 2], np.uint32), 8)
    halves = np.repeat(np.arange(1, 5, dtype=np.uint32), 4)
    one = np.ones(16, np.uint32)
    assert (of(truth, halves).voi_split, of(truth, halves).voi_merge) == (1.0, 0.0)
    assert (of(truth, one).voi_split, of(truth, one).voi_merge) == (0.0, 1.0)


def test_iou_must_be_above_the_threshold():
    truth = np.array([1, 1, 0, 0], np.uint32)
    assert of(truth, np.array([1, 0, 0, 0], np.uint32)).ap50 == 0.0
    assert of(truth, np.array([1, 1, 1, 0], np.uint32)).ap50 == 1.0


@pytest.mark.parametrize("size", [0, 5])
def test_nothing_to_find_and_nothing_found_is_perfect(size):
    empty = np.zeros(size, np.uint32)
    got = asdict(of(empty, empty))
    assert {name: got[name] for name in PERFECT} == PERFECT


def test_one_empty_side_scores_nothing():
    empty, full = np.zeros(4, np.uint32), np.array([1, 1, 2, 2], np.uint32)
    missed, invented = of(full, empty), of(empty, full)
    for got in (missed, invented):
        assert (got.ap50, got.map, got.sbd, got.pq, got.dic) == (0, 0, 0, 0, 2)
    assert (missed.voi_split, missed.voi_merge) == (0, 1)
    assert (invented.voi_split, invented.voi_merge, invented.are) == (0, 0, 0)


def test_large_counts_do_not_overflow():
    pairs = np.array([[1, 1], [2, 2]], np.uint64)
    got = scores(pairs, np.array([10**13, 10**13]))
    assert {name: getattr(got, name) for name in PERFECT} == pytest.approx(PERFECT)
