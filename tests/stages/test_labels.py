"""The index of a volume: objects that blocks cut are one, draws repeat, the split is spatial."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from phantoms import store

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import VolumeResults
from spoco_blocks.grid import Box
from spoco_blocks.settings.fingerprint import fingerprint
from spoco_blocks.settings.jobs import LabelsJob
from spoco_blocks.settings.sections import LabelSettings, Region, Source
from spoco_blocks.stages import labels as stage
from spoco_blocks.stages.labels import run_labels
from spoco_blocks.volumes import open_volume

SHAPE = (40, 50, 70)


@pytest.fixture
def volume(tmp_path):
    rng = np.random.default_rng(0)
    raw = rng.normal(1000, 50, SHAPE).astype(np.float32)
    raw[0, 0, :40] = 1e6
    labels = np.zeros(SHAPE, np.uint32)
    for index in range(12):
        z, y, x = 5 + 18 * (index // 6), 8 + 20 * (index // 3 % 2), 6 + 18 * (index % 3)
        labels[z : z + 9, y : y + 10, x : x + 11] = 100 + 7 * index
    return store(tmp_path / "raw.zarr", raw), store(tmp_path / "labels.zarr", labels), raw, labels


def run(volume, folder, **settings):
    job = LabelsJob(
        volume="v", raw=Source(uri=volume[0]), voxel_size_nm=None, labels=LabelSettings(uri=volume[1], **settings)
    )
    results = VolumeResults(folder)
    return run_labels(job, results, Execution()), results


@pytest.mark.parametrize("edge", [16, 128])
def test_objects_and_intensities(volume, tmp_path, monkeypatch, edge):
    monkeypatch.setattr(stage, "EDGE", edge)
    manifest, results = run(volume, tmp_path / "r")
    _, _, raw, labels = volume
    table = pq.read_table(results.objects).to_pydict()
    assert table["id"] == [100 + 7 * index for index in range(12)]
    for row, number in enumerate(table["id"]):
        places = np.argwhere(labels == number)
        assert table["voxels"][row] == len(places)
        assert [table[f"{a}0"][row] for a in "zyx"] == places.min(0).tolist()
        assert [table[f"{a}1"][row] for a in "zyx"] == (places.max(0) + 1).tolist()
    anchors = pq.read_table(results.anchors).to_pydict()
    for number, *place in zip(anchors["id"], anchors["z"], anchors["y"], anchors["x"], strict=True):
        assert labels[tuple(place)] == number
    low, high = np.percentile(raw, [1, 99])
    assert manifest.result["intensity_low"][0] == pytest.approx(low, abs=5)
    assert manifest.result["intensity_high"][0] == pytest.approx(high, abs=10)
    assert manifest.result["object_length_nm"] == 11 * 500


def test_objects_that_share_one_number_are_noticed(volume, tmp_path):
    assert run(volume, tmp_path / "many")[0].result["warnings"] == []
    mask = store(tmp_path / "mask.zarr", (volume[3] > 0).astype(np.uint8))
    (said,) = run((volume[0], mask), tmp_path / "mask")[0].result["warnings"]
    assert "have the number 1 (11,880 voxels)" in said
    assert "a number of its own" in said
    kept = run(volume, tmp_path / "few", keep_fraction=0.01)[0].result
    assert (kept["annotated"], kept["warnings"]) == (1, [])


def test_draws_repeat_and_follow_the_seed(volume, tmp_path):
    def kept(name, **settings):
        return tuple(pq.read_table(run(volume, tmp_path / name, **settings)[1].objects)["annotated"].to_pylist())

    first = kept("a", keep_fraction=0.5)
    assert sum(first) == 6
    assert kept("b", keep_fraction=0.5) == first
    assert len({first, *(kept(f"s{seed}", keep_fraction=0.5, seed=seed) for seed in (1, 2, 3))}) > 1
    assert sum(kept("one", keep_fraction=0.001)) == 1


def test_validation_is_a_part_of_the_region_of_its_own(volume, tmp_path):
    manifest, _ = run(volume, tmp_path / "r", validation_fraction=0.3)
    training, validation = manifest.result["training"], manifest.result["validation"]
    assert training[0] == (0, 0, 0) or list(training[0]) == [0, 0, 0]
    assert list(validation[1]) == list(SHAPE)
    assert training[1][2] == validation[0][2] < 60
    few, _ = run(volume, tmp_path / "few", keep_fraction=0.5)
    assert few.result["validation"] is None


def test_nothing_outside_the_region_is_indexed(volume, tmp_path):
    region = Region(stop_nm=(None, None, 20 * 500))
    manifest, results = run(volume, tmp_path / "r", region=region)
    table = pq.read_table(results.objects).to_pydict()
    assert len(table["id"]) == 4
    assert max(table["x1"]) <= 20
    assert list(manifest.result["region"][1]) == [40, 50, 20]


def test_labels_edited_in_place_are_indexed_again(volume, tmp_path):
    _, labels_uri, _, labels = volume
    job = LabelsJob(volume="v", raw=Source(uri=volume[0]), voxel_size_nm=None, labels=LabelSettings(uri=labels_uri))
    results, before = VolumeResults(tmp_path / "r"), fingerprint(labels_uri)
    first = run_labels(job, results, Execution(), before)
    assert run_labels(job, results, Execution(), before).digest == first.digest
    assert fingerprint(labels_uri) == before
    edited = labels.copy()
    edited[35:38, 45:48, 55:58] = 999
    open_volume(labels_uri).write(Box.of_shape(SHAPE), edited)
    assert fingerprint(labels_uri) != before
    second = run_labels(job, results, Execution(), fingerprint(labels_uri))
    assert (first.result["objects"], second.result["objects"]) == (12, 13)
    assert second.digest != first.digest


def test_fingerprint_of_a_file_and_of_nothing(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"1")
    inside = fingerprint(str(tmp_path / "a.h5/raw"))
    (tmp_path / "a.h5").write_bytes(b"12")
    assert fingerprint(str(tmp_path / "a.h5/raw")) != inside
    assert fingerprint(str(tmp_path / "none.zarr"), None) == fingerprint(str(tmp_path / "none.zarr"))
