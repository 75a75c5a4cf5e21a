"""Training volumes as stage `labels` left them: in the model's voxels, with all that their settings say."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
from phantoms import ball_configuration, balls, store

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.errors import VolumeError
from spoco_blocks.grid import Box
from spoco_blocks.learn.checkpoint import load_checkpoint
from spoco_blocks.learn.label_values import BACKGROUND, IGNORE
from spoco_blocks.learn.loader import Loader
from spoco_blocks.settings import jobs, parse_settings
from spoco_blocks.stages.labels import run_labels
from spoco_blocks.stages.prepare import open_parts, smallest_object
from spoco_blocks.stages.train import run_train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Give a folder with balls, and the same at twice the resolution within the plane."""
    folder = tmp_path_factory.mktemp("parts")
    tree = ball_configuration(folder, iterations=4)
    raw, labels = balls()
    finer = [np.repeat(np.repeat(array, 2, 1), 2, 2) for array in (raw, labels)]
    size = (500.0, 250.0, 250.0)
    tree["volumes"]["fine"] = copy.deepcopy(tree["volumes"]["balls"])
    tree["volumes"]["fine"]["raw"]["uri"] = store(folder / "fine.zarr", finer[0], size)
    tree["volumes"]["fine"]["labels"] |= {
        "uri": store(folder / "fine_labels.zarr", finer[1], size), "region": {"stop_voxels": [None, None, 80]},
    }  # fmt: skip
    del tree["volumes"]["fine"]["truth"]
    tree["models"]["balls"]["volumes"] = ["balls", "fine"]
    return folder, tree


def indexed(tree, results) -> tuple[jobs.TrainJob, Layout]:
    settings, layout = parse_settings(tree), Layout(results)
    for volume in tree["models"]["balls"]["volumes"]:
        run_labels(jobs.labels_job(settings, volume), layout.volume(volume), Execution())
    return jobs.train_job(settings, "balls"), layout


def test_volumes_of_two_voxel_sizes_show_the_same_to_a_model(folder, tmp_path):
    job, layout = indexed(folder[1], tmp_path)
    own, fine = open_parts(job, layout)
    assert (own.zoom, fine.zoom) == ((1.0, 1.0, 1.0), (1.0, 0.5, 0.5))
    assert (own.training, own.isotropic) == (fine.training, fine.isotropic)
    box = Box((4, 6, 2), (30, 40, 38))
    raws, labels = zip(*(part.volume.read(box) for part in (own, fine)), strict=True)
    np.testing.assert_allclose(*raws, atol=0.05)  # their percentiles are sampled
    np.testing.assert_array_equal(*(lab > 0 for lab in labels))
    assert np.mean((labels[0] == BACKGROUND) == (labels[1] == BACKGROUND)) > 0.95
    for part in (own, fine):
        seen = part.volume.read(part.training)[1]
        for number, voxels in part.volume.anchors.items():
            place = np.flatnonzero(part.volume.supervision.kept == number)[0]
            assert {int(seen[tuple(voxel)]) for voxel in voxels} == {place + 1}


@pytest.mark.parametrize("size", [None, [500, 250, 250]])
def test_the_checkpoint_carries_the_models_voxel_size(folder, tmp_path, size):
    tree = copy.deepcopy(folder[1])
    tree["models"]["balls"]["voxel_size_nm"] = size
    job, layout = indexed(tree, tmp_path)
    run_train(job, layout, threads=1)
    assert load_checkpoint(layout.model("balls").checkpoint).voxel_size_nm == tuple(size or (500, 500, 500))
    parts = open_parts(job, layout)
    assert parts[1].zoom == ((1.0, 0.5, 0.5) if size is None else (1.0, 1.0, 1.0))


def test_voxel_sizes_too_far_apart_stop_before_training(folder, tmp_path):
    tree = copy.deepcopy(folder[1])
    tree["models"]["balls"]["voxel_size_nm"] = [500, 1500, 1500]
    job, layout = indexed(tree, tmp_path)
    with pytest.raises(VolumeError, match=r"fine has \(500.*more than 4 times"):
        run_train(job, layout, threads=1)


def test_workers_open_the_parts_by_themselves(folder, tmp_path):
    job, layout = indexed(folder[1], tmp_path)
    opener = partial(open_parts, job, layout)
    assert pickle.loads(pickle.dumps(opener)) is not opener
    crops = {"batch": 2, "centred": 0.8, "seed": 0}
    (expected,) = Loader(opener, (12, 12, 12), workers=0, **crops).batches(3, 4)
    (found,) = Loader(opener, (12, 12, 12), workers=1, **crops).batches(3, 4)
    assert (found.raw == expected.raw).all()
    assert (found.labels == expected.labels).all()


def labels_of(tree, tmp_path, **settings):
    tree = copy.deepcopy(tree)
    tree["models"]["balls"]["volumes"] = ["balls"]
    plain = {"uri": tree["volumes"]["balls"]["labels"]["uri"], "region": {"stop_voxels": [None, None, 40]}}
    tree["volumes"]["balls"]["labels"] = plain | settings
    job, layout = indexed(tree, tmp_path)
    (part,) = open_parts(job, layout)
    return part, layout.volume("balls")


def test_partial_objects_have_a_margin_and_no_shell(folder, tmp_path):
    part, _ = labels_of(folder[1], tmp_path, partial=True, partial_margin_voxels=12)
    assert (part.volume.supervision.shell, part.volume.supervision.margin) == ((0, 0, 0), (12, 12, 12))
    narrow, _ = labels_of(folder[1], tmp_path / "narrow", partial=True, partial_margin_voxels=3)
    assert narrow.volume.supervision.margin == (9, 9, 9)  # as far as the affinity head compares
    known = part.volume.read(part.training)[1]
    assert (known == IGNORE).any()
    assert not (known == BACKGROUND).any()


def test_dense_regions_given_in_nm(folder, tmp_path):
    region = {"start_nm": [5000, None, None], "stop_nm": [10000, None, None]}
    part, _ = labels_of(folder[1], tmp_path, shell_voxels=0, dense_regions=[region])
    known = part.volume.read(part.training)[1]
    assert (known[10:20] != 0).all()
    assert not (known[:10] == BACKGROUND).any()


def test_two_annotators_make_one_index(folder, tmp_path):
    labels = balls()[1]
    halves = [np.where(labels % 2 == parity, (labels + 1) // 2, 0).astype(np.uint32) for parity in (0, 1)]
    uris = [store(tmp_path / f"{parity}.zarr", half) for parity, half in enumerate(halves)]
    both, results = labels_of(folder[1], tmp_path / "both", uri=uris[0], also=[{"uri": uris[1]}], validation_fraction=0)
    alone, _ = labels_of(folder[1], tmp_path / "alone", validation_fraction=0)
    table = pq.read_table(results.objects).to_pydict()
    _, counts = np.unique(labels[..., :40][labels[..., :40] > 0], return_counts=True)
    assert sorted(table["voxels"]) == sorted(counts)
    pair = np.stack([part.volume.read(alone.training)[1].ravel() for part in (both, alone)])
    names = np.unique(pair[:, pair[1] > 0], axis=1)
    assert names.shape[1] == len(set(names[0])) == len(set(names[1])) == len(table["id"])
    np.testing.assert_array_equal(pair[0] > 0, pair[1] > 0)


def test_small_objects_are_counted_in_voxels_of_the_model(folder, tmp_path):
    _, layout = indexed(folder[1], tmp_path)
    own, fine = (Manifest.read(layout.volume(name).manifest) for name in ("balls", "fine"))
    table = pq.read_table(layout.volume("balls").objects).to_pydict()
    sizes = [v for v, annotated in zip(table["voxels"], table["annotated"], strict=True) if annotated]
    assert own.result["small_object_voxels"] == pytest.approx(np.quantile(sizes, 0.1))
    expected = min(own.result["small_object_voxels"], fine.result["small_object_voxels"] / 4)
    assert smallest_object([own, fine], (500.0, 500.0, 500.0)) == round(expected)
    assert smallest_object([fine], (500.0, 250.0, 250.0)) == round(fine.result["small_object_voxels"])
    images = Manifest("labels", "d", result=fine.result | {"planar": True})
    assert smallest_object([images], (1.0, 250.0, 250.0)) == round(fine.result["small_object_voxels"])
    outlined = Manifest("labels", "d", result=fine.result | {"small_object_voxels": None})
    assert smallest_object([own, outlined], (500.0, 500.0, 500.0)) is None
