"""The stages after training: what they write, and what must not change it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from oracles import adjusted_rand_index

from spoco_blocks.clustering import Mutex
from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.errors import GridError
from spoco_blocks.grid import Box
from spoco_blocks.learn.checkpoint import load_checkpoint
from spoco_blocks.learn.intensity import Normalisation
from spoco_blocks.learn.mirrored import Mirrored
from spoco_blocks.learn.predict import Predictor, predict
from spoco_blocks.volumes import open_volume

SHAPE = (40, 48, 64)


def whole(path):
    volume = open_volume(path)
    return volume.read(Box.of_shape(volume.meta.shape))


@pytest.fixture(scope="module")
def first(trained):
    return trained.segment("first")


def test_scores_and_objects_describe_the_segments(first):
    scores = json.loads(first.scores.read_text())
    assert scores["n_truth"] == 24
    assert scores["ap50"] > 0.8
    segments = whole(first.segments)
    objects = pq.read_table(first.objects).to_pydict()
    assert objects["id"] == list(range(1, int(segments.max()) + 1))
    for index, number in enumerate(objects["id"]):
        places = np.argwhere(segments == number)
        assert objects["voxels"][index] == len(places)
        for axis, name in enumerate("zyx"):
            assert objects[f"{name}0"][index] == places[:, axis].min()
            assert objects[f"{name}1"][index] == places[:, axis].max() + 1
            centroid = (places[:, axis].mean() + 0.5) * 500
            assert objects[f"centroid_{name}_nm"][index] == pytest.approx(centroid)
        touches = (places.min(0) == 0).any() or (places.max(0) == np.array(SHAPE) - 1).any()
        assert objects["touches_border"][index] == touches


def test_stored_embeddings_equal_prediction_of_the_whole(trained, first):
    labels = Manifest.read(trained.layout.volume("balls").manifest).result
    raw = open_volume(trained.tree["volumes"]["balls"]["raw"]["uri"]).read(Box.of_shape(SHAPE))
    normalised = Normalisation(tuple(labels["intensity_low"]), tuple(labels["intensity_high"]))(raw)
    network = load_checkpoint(trained.layout.model("balls").checkpoint).network()
    predicted = predict(network, normalised)
    np.testing.assert_allclose(whole(first.embeddings), predicted.embeddings.astype(np.float16), rtol=2e-3, atol=2e-3)
    # 0 is kept for where nothing was looked for.
    assert np.abs(whole(first.foreground) - np.maximum(predicted.foreground * 255, 1)).max() <= 0.51
    assert np.abs(whole(first.affinities) - predicted.affinities * 255).max() <= 0.51


def test_f_predicts_where_it_is_asked_to(trained, first):
    other = trained.segment("of_f", weights="f")
    labels = Manifest.read(trained.layout.volume("balls").manifest).result
    raw = open_volume(trained.tree["volumes"]["balls"]["raw"]["uri"]).read(Box.of_shape(SHAPE))
    normalised = Normalisation(tuple(labels["intensity_low"]), tuple(labels["intensity_high"]))(raw)
    network = load_checkpoint(trained.layout.model("balls").checkpoint).network(ema=False)
    expected = predict(network, normalised).embeddings
    np.testing.assert_allclose(whole(other.embeddings), expected.astype(np.float16), rtol=2e-3, atol=2e-3)
    assert np.abs(whole(other.embeddings) - whole(first.embeddings)).max() > 0.01


@pytest.mark.parametrize("blocks", [[20, 24, 32], [12, 16, 20]])
def test_mirror_images_are_averaged_where_asked_for(trained, first, blocks):
    other = trained.segment(
        f"mirrored{blocks[0]}",
        prediction={"mirrored": True},
        blocks={"shape_voxels": blocks, "halo_voxels": 8},
        clustering={"kind": "mutex"},
    )
    labels = Manifest.read(trained.layout.volume("balls").manifest).result
    raw = open_volume(trained.tree["volumes"]["balls"]["raw"]["uri"]).read(Box.of_shape(SHAPE))
    normalised = Normalisation(tuple(labels["intensity_low"]), tuple(labels["intensity_high"]))(raw)
    network = load_checkpoint(trained.layout.model("balls").checkpoint).network()
    expected = Mirrored(Predictor(network))(normalised)
    assert np.abs(whole(other.foreground) - np.maximum(expected.foreground * 255, 1)).max() <= 0.51
    assert np.abs(whole(other.affinities) - expected.affinities * 255).max() <= 0.51
    np.testing.assert_allclose(whole(other.embeddings), whole(first.embeddings), rtol=2e-3, atol=2e-3)
    assert np.abs(whole(other.affinities).astype(int) - whole(first.affinities)).max() > 5


@pytest.mark.parametrize("blocks", [[40, 48, 64], [12, 16, 20]])
def test_block_shape_does_not_show(trained, first, blocks):
    name = f"blocks{blocks[0]}"
    other = trained.segment(name, blocks={"shape_voxels": blocks, "halo_voxels": 12})
    np.testing.assert_allclose(whole(other.embeddings), whole(first.embeddings), rtol=2e-3, atol=2e-3)
    assert adjusted_rand_index(whole(first.segments), whole(other.segments)) > 0.99


@pytest.mark.parametrize(("executor", "shards"), [("threads", 1), ("dask", 3)])
def test_executor_and_shards_change_nothing(trained, first, executor, shards):
    other = trained.segment(f"{executor}{shards}", Execution(executor, 2), shards)
    for name in ("embeddings", "foreground", "fragments", "segments"):
        np.testing.assert_array_equal(whole(getattr(other, name)), whole(getattr(first, name)))
    assert pq.read_table(other.objects).equals(pq.read_table(first.objects))


def test_running_again_computes_nothing_and_changes_nothing(trained, first):
    before = whole(first.segments)
    trained.segment("first")
    for stage in ("embed", "cluster", "relabel"):
        assert Manifest.read(first.manifest(stage, 0)).result["computed"] == 0
    np.testing.assert_array_equal(whole(first.segments), before)


def test_a_removed_store_is_made_again(trained):
    results = trained.segment("removed")
    before = whole(results.segments)
    shutil.rmtree(results.embeddings)
    shutil.rmtree(results.segments)
    trained.segment("removed")
    assert Manifest.read(results.manifest("embed", 0)).result["computed"] == 8
    np.testing.assert_array_equal(whole(results.segments), before)


@pytest.mark.parametrize("kind", ["mean_shift", "hdbscan"])
def test_other_methods_go_the_same_way(trained, kind):
    results = trained.segment(kind, clustering={"kind": kind})
    scores = json.loads(results.scores.read_text())
    assert scores["ap50"] > 0.5


def test_small_segments_are_dropped(trained, first):
    sizes = pq.read_table(first.objects)["voxels"].to_numpy()
    limit = int(np.median(sizes))
    results = trained.segment("large", stitching={"min_voxels": limit})
    assert pq.read_table(results.objects)["voxels"].to_numpy().min() >= limit
    kept = np.unique(whole(results.segments))
    assert len(kept) - 1 == (sizes >= limit).sum()


def test_mutex_does_not_show_its_blocks(trained):
    one = trained.segment("mutex-whole", clustering={"kind": "mutex"}, blocks={"shape_voxels": list(SHAPE)})
    many = trained.segment("mutex-blocks", clustering={"kind": "mutex"}, blocks={"shape_voxels": [16, 24, 20]})
    first, second = whole(one.segments), whole(many.segments)
    assert first.max() >= 3
    assert adjusted_rand_index(first, second) > 0.97


def test_mutex_needs_a_halo_and_affinities(trained):
    blocks = {"shape_voxels": [16, 24, 20], "halo_voxels": 0}
    with pytest.raises(GridError, match="halo_voxels to at least 1"):
        trained.segment("mutex-no-halo", clustering={"kind": "mutex"}, blocks=blocks)


def test_blocks_know_how_small_objects_are_and_where_they_are_cut(trained, monkeypatch):
    seen = []
    cluster = Mutex.__call__

    def observed(self, embeddings, foreground, context=None):
        seen.append((context.smallest_voxels, context.cut))
        return cluster(self, embeddings, foreground, context)

    monkeypatch.setattr(Mutex, "__call__", observed)
    trained.segment("mutex-context", clustering={"kind": "mutex"}, blocks={"shape_voxels": [SHAPE[0], SHAPE[1], 16]})
    checkpoint = load_checkpoint(trained.layout.model("balls").checkpoint)
    assert {smallest for smallest, _ in seen} == {checkpoint.smallest_voxels}
    first, *_, last = (cut for _, cut in seen)
    assert (first, last) == (((False, False),) * 2 + ((False, True),), ((False, False),) * 2 + ((True, False),))
