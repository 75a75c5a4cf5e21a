"""Pseudo-labels are what two segmentations agree on, from the training part alone, and a model learns from them."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from oracles import adjusted_rand_index
from pipeline import SERIAL, segment

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.grid import Box, triple
from spoco_blocks.kernels.contingency import contingency
from spoco_blocks.learn.checkpoint import load_checkpoint
from spoco_blocks.learn.distributed import Group
from spoco_blocks.settings import jobs, parse_settings
from spoco_blocks.settings.expansion import expand, teacher_segmentations
from spoco_blocks.settings.jobs import AgreeJob, LabelsJob
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.agree import choose_segments, count_fates, run_agree
from spoco_blocks.stages.labels import run_labels
from spoco_blocks.stages.prepare import open_parts, prepare
from spoco_blocks.stages.train import run_train
from spoco_blocks.volumes import open_volume

TEACHER = "balls--round0"


def whole(path):
    volume = open_volume(path)
    return volume.read(Box.of_shape(volume.meta.shape))


def limits(**changes) -> AgreeJob:
    volume = LabelsJob(volume="v", raw=Source(uri="raw"), voxel_size_nm=None, labels=None)
    defaults = {"agreement": 0.8, "min_voxels": 4, "max_contradicted": 0.25, "background": 0.1}
    return AgreeJob(segmentation="g", other="f", model="m", volume=volume, **(defaults | changes))


def test_choice_equals_counting_by_hand():
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(13), 10).astype(np.uint32)
    f = np.where(rng.random(g.size) < 0.12, rng.integers(0, 13, g.size), g).astype(np.uint32)
    denied = rng.random(g.size) < 0.25
    pairs, counts = contingency(f, g)
    job = limits(agreement=0.7, min_voxels=10)
    table = choose_segments(pairs.astype(np.int64), counts, np.bincount(g, denied, 13).astype(np.int64), job)
    number = 0
    for index in range(1, 13):
        mine = g == index
        iou = max(np.sum(mine & (f == other)) / np.sum(mine | (f == other)) for other in range(1, 13))
        kept = iou > 0.7 and denied[mine].mean() <= 0.25
        number += kept
        assert table["iou"][index - 1] == pytest.approx(iou)
        assert table["contradicted"][index - 1] == pytest.approx(denied[mine].mean())
        assert table["id"][index - 1] == (number if kept else 0)
    fates = count_fates(table)
    assert 0 < fates["kept"] == number < fates["agreed"] < fates["segments_g"] == 12
    assert fates["agreed"] == fates["kept"] + fates["too_small"] + fates["contradicted"]


def test_limits_are_exclusive_where_they_say_so():
    pairs, counts = np.array([[1, 1], [0, 1], [2, 2]]), np.array([8, 2, 3])
    nothing_denied = np.zeros(3, np.int64)
    assert choose_segments(pairs, counts, nothing_denied, limits())["id"].tolist() == [0, 0]
    assert choose_segments(pairs, counts, nothing_denied, limits(agreement=0.79))["id"].tolist() == [1, 0]
    assert choose_segments(pairs, counts, nothing_denied, limits(min_voxels=3))["id"].tolist() == [0, 1]
    empty = choose_segments(np.zeros((1, 2), np.int64), np.array([9]), np.zeros(1, np.int64), limits())
    assert count_fates(empty)["kept"] == len(empty["id"]) == 0


@pytest.fixture(scope="module")
def configured(trained, tmp_path_factory):
    """The trained model as a teacher that has segmented its training part; voxels outside of it were made garbage."""
    folder = tmp_path_factory.mktemp("rounds")
    tree = copy.deepcopy(trained.tree)
    volume = tree["volumes"]["balls"]
    shutil.copytree(volume["raw"]["uri"], folder / "raw.zarr")
    volume["raw"]["uri"] = str(folder / "raw.zarr")
    volume["labels"] |= {"keep_fraction": 0.5, "validation_fraction": 0.45, "region": None}
    tree["models"]["balls"]["pseudo_labels"] = {
        "rounds": 1,
        "segmentation": {"blocks": {"shape_voxels": [20, 24, 32], "halo_voxels": 8}, "stitching": {"min_voxels": 50}},
    }
    tree["models"]["balls"]["training"]["iterations"] = 4
    settings, layout = expand(parse_settings(tree)), Layout(folder / "results")
    found = run_labels(jobs.labels_job(settings, "balls"), layout.volume("balls"), SERIAL).result
    shutil.copytree(trained.layout.model("balls").root, layout.model(TEACHER).root)
    part = Box(triple(found["training"][0]), triple(found["training"][1]))
    assert found["validation"] is not None
    raw = open_volume(folder / "raw.zarr")
    voxels = raw.read(Box.of_shape(raw.meta.shape))
    garbage = np.random.default_rng(1).integers(0, 256, voxels.shape).astype(voxels.dtype)
    garbage[part.slices] = voxels[part.slices]
    raw.write(Box.of_shape(raw.meta.shape), garbage)
    for name in teacher_segmentations(TEACHER, "balls").values():
        segment(settings, name, layout)
    return settings, layout, part, trained


def agreed(configured, execution=SERIAL, **changes):
    settings, layout, _, _ = configured
    job = jobs.agree_job(settings, TEACHER, "balls").model_copy(update=changes)
    return run_agree(job, layout, execution)


@pytest.fixture(scope="module")
def manifest(configured):
    return agreed(configured)


def test_pseudo_labels_are_true_objects_that_nobody_annotated(configured, manifest):
    _, layout, part, _ = configured
    results = layout.model(TEACHER).pseudo("balls")
    labels = whole(results.labels)
    assert labels.shape == part.shape
    assert manifest.result["part"] == [part.start, part.stop]
    truth = whole(configured[3].tree["volumes"]["balls"]["labels"]["uri"])[part.slices]
    table = pq.read_table(layout.volume("balls").objects).to_pydict()
    annotated = [i for i, a in zip(table["id"], table["annotated"], strict=True) if a]
    inside = np.setdiff1d(np.unique(truth), [0, *annotated])
    assert labels.max() == manifest.result["kept"] >= 4
    for number in range(1, labels.max() + 1):
        ids, counts = np.unique(truth[labels == number], return_counts=True)
        assert ids[counts.argmax()] in inside
        assert counts.max() > 0.6 * counts.sum()
    assert adjusted_rand_index(labels[labels > 0], truth[labels > 0]) > 0.7
    background = whole(results.background) > 0
    assert background.any()
    assert (truth[background] == 0).mean() > 0.98
    assert not (labels[background] > 0).any()
    anchors = pq.read_table(results.anchors).to_pydict()
    assert set(anchors["id"]) == set(range(1, labels.max() + 1))
    for z, y, x, number in zip(anchors["z"], anchors["y"], anchors["x"], anchors["id"], strict=True):
        assert labels[z - part.start[0], y - part.start[1], x - part.start[2]] == number


def test_nothing_outside_the_training_part_is_looked_at(configured, manifest):
    """With the raw data as they were, instead of garbage outside of the part, the pseudo-labels are the same."""
    settings, layout, _, trained = configured
    clean = Layout(layout.root.parent / "clean")
    tree = settings.model_dump(mode="json", exclude_none=True)
    tree["volumes"]["balls"]["raw"]["uri"] = trained.tree["volumes"]["balls"]["raw"]["uri"]
    del tree["models"][TEACHER]
    tree["segmentations"] = {}
    other = expand(parse_settings(tree))
    run_labels(jobs.labels_job(other, "balls"), clean.volume("balls"), SERIAL)
    shutil.copytree(layout.model(TEACHER).root, clean.model(TEACHER).root, ignore=shutil.ignore_patterns("pseudo"))
    for name in teacher_segmentations(TEACHER, "balls").values():
        segment(other, name, clean)
    run_agree(jobs.agree_job(other, TEACHER, "balls"), clean, SERIAL)
    for store in ("labels", "background"):
        ours, theirs = (getattr(where.model(TEACHER).pseudo("balls"), store) for where in (layout, clean))
        np.testing.assert_array_equal(whole(ours), whole(theirs))


def test_again_does_nothing_and_another_limit_only_writes(configured, manifest):
    results = configured[1].model(TEACHER).pseudo("balls")
    before = whole(results.labels)
    again = agreed(configured)
    blocks = again.result["reused"]
    assert (again.result["computed"], again.digest) == (0, manifest.digest)
    overlaps = (results.ledger("overlaps") / "shard-0.ledger").read_bytes()
    strict = agreed(configured, agreement=0.9999)
    assert (strict.result["computed"], strict.result["reused"]) == (blocks, 0)
    assert (results.ledger("overlaps") / "shard-0.ledger").read_bytes() == overlaps
    assert strict.result["kept"] < manifest.result["kept"]
    nothing = agreed(configured, min_voxels=10**6)
    assert nothing.result["kept"] == 0 == whole(results.labels).max()
    assert "under 1000000 voxels" in nothing.result["warnings"][0]
    agreed(configured, Execution("threads", 2))
    np.testing.assert_array_equal(whole(results.labels), before)


def test_a_model_learns_from_labels_and_pseudo_labels(configured, manifest):
    settings, layout, part, _ = configured
    agreed(configured)
    trained = run_train(jobs.train_job(settings, "balls"), layout, threads=1)
    assert trained.inputs["agree/balls"] == manifest.digest
    assert trained.result["pseudo_objects"] == {"balls": manifest.result["kept"]}
    (volume,) = [p.volume for p in open_parts(jobs.train_job(settings, "balls"), layout)]
    annotated = len(volume.supervision.kept)
    _, known = volume.read(part)
    assert set(np.unique(known[known > annotated])) <= {annotated + n for n in range(1, manifest.result["kept"] + 1)}
    assert (known > annotated).any()
    assert sum(key < 0 for key in volume.anchors) == manifest.result["kept"]


def test_training_starts_afresh_unless_asked_otherwise(configured, manifest):
    settings, layout, _, _ = configured
    agreed(configured)
    sources = [Manifest.read(layout.volume("balls").manifest)]
    job = jobs.train_job(settings, "balls")
    teacher = load_checkpoint(layout.model(TEACHER).checkpoint)
    for continued in (False, True):
        teaching = job.teaching.model_copy(update={"continue_training": continued})
        training, *_ = prepare(job.model_copy(update={"teaching": teaching}), sources, layout, 1, Group(), None)
        for network, weights in ((training.f, teacher.weights), (training.g, teacher.weights_ema)):
            same = all(np.array_equal(tensor, weights[name]) for name, tensor in network.state_dict().items())
            assert same is continued
