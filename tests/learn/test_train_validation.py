"""Validation scores what clustering gives, against what is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from runs import PATCH, loader, open_balls, steps, training, write_balls
from scipy import ndimage

from spoco_blocks.clustering import METHODS
from spoco_blocks.grid import Box
from spoco_blocks.kernels.contingency import contingency
from spoco_blocks.kernels.scores import scores
from spoco_blocks.kernels.sparse_scores import sparse_scores
from spoco_blocks.learn.label_values import BACKGROUND
from spoco_blocks.learn.network_plan import plan_network
from spoco_blocks.learn.places import Place, central_box, cluster_place, predict_place, read_places, tabulate
from spoco_blocks.learn.predict import Prediction
from spoco_blocks.learn.recommend import (
    ENOUGH,
    THRESHOLDS,
    Recommendation,
    object_distance,
    recommend,
    suited,
    suited_method,
)
from spoco_blocks.learn.validation import THRESHOLD, Validation, validation_voxels
from spoco_blocks.settings.loss import LossSettings

STRIDE = (2, 2, 2)


@pytest.fixture
def folder(tmp_path):
    torch.set_num_threads(1)
    write_balls(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    torch.set_num_threads(1)
    write_balls(folder)
    run = training(60)
    steps(run, loader(folder), 60)
    return run


def judged(folder, **options) -> Validation:
    return Validation(open_balls(folder, **options), PATCH, STRIDE, every=100, batch=1)


def test_a_trained_network_finds_objects_and_an_untrained_one_does_not(folder, trained):
    validation = judged(folder, validation=True)
    first, after = validation(training()), validation(trained)
    assert after["validation_mean_iou"] > first["validation_mean_iou"] + 0.2
    assert set(after) >= {"validation_pull", "validation_recall", "validation_over_segmentation", "validation_dice"}
    assert after == validation(trained)
    assert 0 < after["validation_foreground_fraction"] < 1


def segmented(trained, place, scale=(4.0, 4.0, 4.0)):
    """Segment a place as validation does; also its foreground."""
    network = trained.g.eval()
    predicted = predict_place(network, place, scale)
    mask = predicted.foreground > THRESHOLD
    method = suited_method("modes", object_distance(trained.pull, trained.settings.loss))
    return cluster_place(predicted, place, network.plan, method, mask), mask


def test_scores_are_those_of_the_segments_against_the_labels(folder, trained):
    validation = judged(folder, annotated=6)
    (place,) = validation.places
    segments, _ = segmented(trained, place)
    expected = sparse_scores(*contingency(place.labels.clip(0).astype(np.uint32), segments))
    values = validation(trained)
    assert expected.n_truth == validation.objects == 6
    assert values["training_mean_iou"] == pytest.approx(expected.mean_iou)
    assert values["training_recall"] == pytest.approx(expected.recall)
    assert values["training_over_segmentation"] == pytest.approx(expected.over_segmentation)


def test_without_spared_objects_nothing_is_selected_by(folder):
    assert judged(folder).prefix == "training"
    assert not judged(folder).selects
    assert judged(folder, validation=True).objects == 3
    assert judged(folder, validation=True).selects
    few = judged(folder, validation=True, annotated=2)
    assert (few.prefix, few.objects, few.selects) == ("validation", 2, False)
    assert judged(folder).crops == []


def test_where_everything_is_known_false_segments_count(folder, trained):
    sparse, dense = judged(folder, validation=True), judged(folder, validation=True, annotated=8, dense=True)
    assert sparse.criterion == "validation_mean_iou"
    assert dense.criterion == "validation_sbd"
    (place,) = dense.places
    segments, _ = segmented(trained, place)
    expected = scores(*contingency(place.labels.clip(0).astype(np.uint32), segments))
    values = dense(trained)
    assert values["validation_ap50"] == pytest.approx(expected.ap50)
    assert values["validation_sbd"] == pytest.approx(expected.sbd)
    assert "validation_ap50" not in sparse(trained)


def test_several_volumes_are_scored_as_one(folder, trained):
    part = open_balls(folder, validation=True)[0]
    other = replace(part, validation=Box((16, 0, 0), (32, 32, 32)))
    validation = Validation([part, other], PATCH, STRIDE, every=100, batch=1)
    single = [Validation([each], PATCH, STRIDE, every=50, batch=1) for each in (part, other)]
    objects = [each.objects for each in single]
    expected = np.average(
        [each(trained)["validation_mean_iou"] if each.objects else 0 for each in single], weights=objects
    )
    assert validation(trained)["validation_mean_iou"] == pytest.approx(expected)


def test_ignored_voxels_and_slivers_do_not_count():
    labels = np.zeros((1, 12, 12), np.int32)
    labels[0, :4, :5], labels[0, 6:8, 6:8], labels[0, 9:] = 1, 2, -2
    segments = np.where(labels == 1, 1, 0).astype(np.uint32)
    segments[0, 9:] = 1  # the segment spills over where nobody looks
    place = Place(np.zeros((1, *labels.shape), np.float32), labels, False)
    found = sparse_scores(*tabulate(place, segments, 3))
    assert (found.mean_iou, found.n_truth) == (1.0, 1)


def test_independent_images_share_no_segments(folder, trained):
    place = judged(folder, annotated=6).places[0]
    flat = replace(place, planar=True)
    segments, mask = segmented(trained, flat, scale=None)
    assert (segments[mask] > 0).any()
    seen = [set(np.unique(image)) - {0} for image in segments]
    assert sum(map(len, seen)) == len(set().union(*seen)) == segments.max()


@pytest.mark.parametrize(
    ("shape", "voxels", "planar", "expected"),
    [
        ((64, 64, 64), 32**3, False, (32, 32, 32)),
        ((8, 200, 200), 8 * 40 * 40, False, (8, 40, 40)),
        ((200, 30, 31), 10**9, False, (200, 30, 30)),
        ((10, 100, 100), 3 * 100 * 100, True, (2, 100, 100)),
        ((10, 300, 300), 100 * 100, True, (1, 100, 100)),
        ((1, 300, 40), 40 * 80, True, (1, 80, 40)),
    ],
)
def test_the_box_is_central_and_within_its_budget(shape, voxels, planar, expected):
    stride = (1, 2, 2) if shape[0] == 1 or voxels == 100 * 100 else STRIDE
    whole = Box((5, 6, 7), tuple(s + o for s, o in zip(shape, (5, 6, 7), strict=True)))
    box = central_box(whole, voxels, stride, planar)
    assert box.shape == expected
    assert box.size <= voxels
    for axis in range(3):
        assert abs((box.start[axis] - whole.start[axis]) - (whole.stop[axis] - box.stop[axis])) <= 1


def test_more_training_between_validations_pays_for_larger_boxes():
    assert validation_voxels((24, 40, 40), 25, 1) < validation_voxels((24, 40, 40), 50, 1) < 10**6
    assert validation_voxels((48, 128, 128), 2000, 4) == 10**6


def test_collapse_is_told_from_what_is_so(folder):
    sparse = judged(folder)
    assert sparse.collapsed({"training_foreground_fraction": 0.995}) == "everything"
    assert sparse.collapsed({"training_foreground_fraction": 0.002}) == "nothing"
    assert sparse.collapsed({"training_foreground_fraction": 0.3}) is None
    sparse.places = [replace(place, labels=np.ones_like(place.labels)) for place in sparse.places]
    assert sparse.collapsed({"training_foreground_fraction": 1.0}) is None
    sparse.places = [replace(place, labels=np.zeros_like(place.labels)) for place in sparse.places]
    assert sparse.collapsed({"training_foreground_fraction": 0.0}) is None


def test_recommended_is_the_lowest_threshold_that_scores_well(folder, trained):
    (place,) = judged(folder, annotated=6).known
    network, scale = trained.g.eval(), trained.objective.coordinate_scale
    advice, predicted = recommend(network, [place], scale, pull=0.0), predict_place(network, place, scale)
    far = (place.labels == BACKGROUND) & (ndimage.distance_transform_cdt(place.labels <= 0, "taxicab") > 4)
    found = {}
    for threshold in THRESHOLDS:
        mask = predicted.foreground > threshold
        segments = cluster_place(predicted, place, network.plan, METHODS[advice.kind](), mask)
        iou = sparse_scores(*contingency(place.labels.clip(0).astype(np.uint32), segments)).mean_iou
        found[threshold] = iou * ((~mask[far]).mean() if far.any() else 1.0)
    assert advice.score == pytest.approx(found[advice.foreground_threshold])
    good = [threshold for threshold, score in found.items() if score >= ENOUGH * max(found.values())]
    assert advice.foreground_threshold == min(good)


def test_mutex_is_recommended_where_objects_are_no_points(folder, trained):
    (place,) = judged(folder, annotated=6).known
    network = trained.g.eval()
    assert recommend(network, [place], None, pull=0.01).kind == "modes"
    assert recommend(network, [place], None, pull=0.5).kind == "mutex"
    assert suited(0.5, replace(network.plan, offsets=())) == "modes"


def test_mutex_is_recommended_for_2d():
    shape = {"in_channels": 1, "embedding_channels": 4, "width": 4, "levels": 2}
    flat = plan_network((1, 1, 1), **shape, affinities=True, planar=True)
    assert suited(0.01, flat) == "mutex"
    assert suited(0.01, replace(flat, offsets=())) == "modes"
    assert suited(0.01, plan_network((4, 1, 1), **shape, affinities=True, planar=False)) == "modes"


def test_the_running_pull_follows_the_term(folder):
    run = training(60)
    rows = steps(run, loader(folder), 60)
    expected = 0.0
    for row in rows:
        expected += 0.02 * (row.get("pull", expected) - expected)
    assert run.pull == pytest.approx(expected, rel=1e-5)
    without = training(1, loss=LossSettings(pull=0.0))
    steps(without, loader(folder), 1)
    assert suited(without.pull, without.g.plan) == "mutex"


def test_a_foreground_that_spills_gets_a_higher_threshold(trained, monkeypatch):
    apart = np.linalg.norm(np.indices((24, 24, 24)) - 12, axis=0)
    place = Place(np.zeros((1, 24, 24, 24), np.float32), (apart < 6).astype(np.int32), planar=False)
    for rim, expected in ((0.65, 0.7), (0.12, 0.15), (0.05, 0.1)):
        foreground = np.where(apart < 6, 0.9, np.where(apart < 9, rim, 0.05)).astype(np.float32)
        said = Prediction(np.zeros((4, 24, 24, 24), np.float32), foreground, np.zeros((9, 24, 24, 24), np.float32))
        monkeypatch.setattr("spoco_blocks.learn.recommend.predict_place", lambda *_, said=said: said)
        advice = recommend(trained.g.eval(), [place], None, pull=0.0)
        assert advice.foreground_threshold == expected
        assert advice.score == pytest.approx(1.0)


def test_nothing_annotated_gives_the_defaults(folder, trained):
    (place,) = judged(folder, annotated=6).known
    unknown = replace(place, labels=np.zeros_like(place.labels))
    assert recommend(trained.g.eval(), [unknown], None, pull=0.1) == Recommendation("modes", 0.3, 0.0)
    told = recommend(trained.g.eval(), [unknown], None, pull=1.0, distance=1.6)
    assert told == Recommendation("mutex", 0.3, 0.0, 1.6)


def test_where_nothing_is_found_the_threshold_is_the_usual_one(trained, monkeypatch):
    place = Place(np.zeros((1, 24, 24, 24), np.float32), np.ones((24, 24, 24), np.int32), planar=False)
    nothing = np.zeros((24, 24, 24), np.float32)
    said = Prediction(np.zeros((4, 24, 24, 24), np.float32), nothing, np.zeros((9, 24, 24, 24), np.float32))
    monkeypatch.setattr("spoco_blocks.learn.recommend.predict_place", lambda *_: said)
    assert recommend(trained.g.eval(), [place], None, pull=1.0) == Recommendation("mutex", 0.3, 0.0)


def test_of_a_large_part_boxes_around_annotated_objects_are_read(folder, monkeypatch):
    monkeypatch.setattr("spoco_blocks.learn.places.BOX_VOXELS", 12**3)
    (part,) = open_balls(folder, annotated=3)
    assert [place.labels.shape for place in read_places(part, 32**3, STRIDE)] == [(32, 32, 32)]
    places = read_places(part, 3 * 12**3, STRIDE)
    assert [place.labels.shape for place in places] == [(12, 12, 12)] * 3
    for place, number in zip(places, sorted(part.volume.anchors), strict=True):
        assert number in place.labels
    (place,) = read_places(part, 12**3, STRIDE)
    assert place.labels.max() > 0
    nothing = replace(part, volume=replace(part.volume, anchors={}))
    assert len(read_places(nothing, 2 * 12**3, STRIDE)) == 1


def test_distances_follow_from_the_pull_term():
    loss = LossSettings()
    assert object_distance(0.0, loss) == 1.0
    assert object_distance(0.01, loss) == pytest.approx(1.2)
    # Never so far that what lies half way to another object is merged.
    assert object_distance(0.5, loss) == object_distance(float("inf"), loss) == 1.6
    assert object_distance(0.0, LossSettings(delta_var=0.4)) == 0.8
    assert suited_method("modes", 1.2).bandwidth == suited_method("modes", 1.2).merge_radius == 1.2
    assert suited_method("mutex", 1.2) == METHODS["mutex"]()
