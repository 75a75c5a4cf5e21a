"""Deciding again with other thresholds: the same as deciding so at once, and nothing else changes."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from spoco_blocks.cli import main
from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.errors import SettingsError
from spoco_blocks.stages.stitch.restitch import Sweep, changes, restitch

BLOCKS = {"shape_voxels": [16, 16, 16], "halo_voxels": 4}
SWEPT = {"modes": ("merge_distance", (0.05, 1.0, 6.0)), "mutex": ("min_overlap", (0.1, 0.5, 1.0))}


@pytest.fixture(scope="module", params=SWEPT)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def first(trained, kind):
    return trained.segment(f"restitched-{kind}", foreground_threshold=0.2, blocks=BLOCKS, clustering={"kind": kind})


def decided(trained, kind, value):
    """The same segmentation, decided with another threshold from the start."""
    stitching = {SWEPT[kind][0]: value, "min_voxels": 20}
    return trained.segment(
        f"{kind}-{value}".replace(".", "_"),
        foreground_threshold=0.2,
        blocks=BLOCKS,
        clustering={"kind": kind},
        stitching=stitching,
    )


def contents(results):
    return {path: path.read_bytes() for path in results.root.rglob("*") if path.is_file()}


def test_a_curve_is_what_each_threshold_gives(trained, kind, first):
    before = contents(first)
    rows = restitch(
        trained.layout, first.root.name, Sweep(SWEPT[kind][1], {"min_voxels": "20"}, score=True), Execution()
    )
    for value, row in zip(SWEPT[kind][1], rows, strict=True):
        other = decided(trained, kind, value)
        objects, scores = pq.read_table(other.objects), json.loads(other.scores.read_text())
        assert (row["threshold"], row["segments"]) == (value, objects.num_rows)
        assert row["largest_voxels"] == max(objects["voxels"].to_pylist())
        for name in ("sbd", "ap50", "map", "voi_split", "voi_merge", "are"):
            assert row[name] == pytest.approx(scores[name], abs=1e-12)
    assert kind == "mutex" or len({row["segments"] for row in rows}) > 1  # balls overlap wholly or not at all
    after = contents(first)
    new = {path.relative_to(first.root).parts[0] for path in after.keys() - before.keys()}
    assert new == {"restitch", "restitch.csv"}
    assert {path: after[path] for path in before} == before
    written = list(csv.DictReader(first.curve.open()))
    assert [{name: float(text) for name, text in row.items()} for row in written] == rows


def test_a_kept_decision_is_as_if_decided_so_at_once(trained, kind, first, capsys):
    results = trained.layout.segmentation(f"kept-{kind}")
    shutil.copytree(first.root, results.root)
    key, values = SWEPT[kind]
    arguments = ["restitch", results.root.name, "--results", str(trained.layout.root), "--executor", "serial"]
    assert main([*arguments, "--threshold", str(values[0]), "--set", "min_voxels=20", "--write"]) == 0
    assert "This decision is kept" in capsys.readouterr().out
    other = decided(trained, kind, values[0])
    np.testing.assert_array_equal(np.load(results.lookup), np.load(other.lookup))
    assert pq.read_table(results.objects).equals(pq.read_table(other.objects))
    assert Manifest.read(results.manifest("stitch")).result["job"]["stitching"][key] == values[0]
    assert main([*arguments, "--threshold", *map(str, values), "--write"]) == 1
    assert "keeps one decision; got 3" in capsys.readouterr().err


def test_what_cannot_be_meant_is_refused(trained, first):
    for sweep, said in (
        (Sweep((1.0,), {"smal_voxels": "3"}), "did you mean 'small_voxels'"),
        (Sweep((-1.0,)), "got '-1.0'"),
        (Sweep((1.0,), {"small_voxels": "few"}), "small_voxels"),
    ):
        with pytest.raises(SettingsError, match=said):
            restitch(trained.layout, first.root.name, sweep, Execution())
    assert changes(["distinct_distance=null", "small_voxels=3"]) == {"distinct_distance": None, "small_voxels": 3}
    with pytest.raises(SettingsError, match="expected KEY=VALUE"):
        changes(["small_voxels"])
    results = trained.layout.segmentation(f"unscored-{first.root.name}")
    shutil.copytree(first.root, results.root)
    results.manifest("evaluate").unlink()
    with pytest.raises(SettingsError, match="names none"):
        restitch(trained.layout, results.root.name, Sweep((0.5,), score=True), Execution())
