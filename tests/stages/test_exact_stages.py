"""Exact stitching through the stages: who runs it, what it is with, and when it is done again."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
from pipeline import punch_holes, run_stage

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.errors import SettingsError
from spoco_blocks.grid import Box
from spoco_blocks.settings import jobs, parse_settings
from spoco_blocks.stages.estimate import estimate
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.stitch.restitch import Sweep, restitch
from spoco_blocks.volumes import open_volume

# A narrow margin, so that no block sees all of the volume.
METHOD = {"kind": "modes", "growth_rounds": 4, "refinement_sweeps": 1, "min_core_voxels": 3, "blend_voxels": 2}
BLOCKS = {"one": [64, 64, 64], "many": [20, 16, 24]}


def written(uri):
    volume = open_volume(uri)
    return volume.read(Box.of_shape(volume.meta.shape))


def chosen(blocks="many", method=None, **stitching):
    return {
        "clustering": METHOD | (method or {}),
        "blocks": {"shape_voxels": BLOCKS[blocks]},
        "stitching": {"exact": True, "min_voxels": 5} | stitching,
    }


@pytest.fixture(scope="module")
def predicted(trained):
    """The network's output for the whole volume in one piece."""
    results = trained.segment("exactly-once", **chosen("one"))
    return {name: written(getattr(results, name)) for name in ("embeddings", "foreground", "segments")}


def given(predicted, **changed):
    """Put given output into the stores: predictions of other blocks differ in the last digits."""

    def edit(results):
        for name in ("embeddings", "foreground"):
            volume = open_volume(getattr(results, name))
            volume.write(Box.of_shape(volume.meta.shape), changed.get(name, predicted[name]))

    return edit


@pytest.mark.parametrize(("executor", "shards"), [("serial", 1), ("threads", 2)])
def test_executor_and_shards_change_nothing(trained, predicted, executor, shards):
    name = f"exactly-{executor}"
    results = trained.segment(name, Execution(executor, 2), shards, edit=given(predicted), **chosen())
    assert predicted["segments"].max() > 20
    np.testing.assert_array_equal(written(results.segments), predicted["segments"])
    assert Manifest.read(results.manifest("cluster", shards - 1)).result["computed"] == 18 // shards


def test_holes_are_filled_alike(trained, predicted):
    found = {}
    for name in BLOCKS:
        results = trained.segment(
            f"exactly-holes-{name}",
            edit=lambda results: (given(predicted)(results), punch_holes(results)),
            **chosen(name, fill_holes_voxels=50),
        )
        assert Manifest.read(results.manifest("stitch")).result["holes"] > 5
        found[name] = written(results.segments)
    np.testing.assert_array_equal(found["many"], found["one"])


def test_int8_embeddings(trained, predicted):
    small = np.clip(np.round(40 * predicted["embeddings"].astype(np.float32)), -127, 127).astype(np.int8)
    found = {}
    for name in BLOCKS:
        results = trained.segment(
            f"exactly-int8-{name}", edit=given(predicted, embeddings=small), embedding_type="int8", **chosen(name)
        )
        assert written(results.embeddings).dtype == np.int8
        found[name] = written(results.segments)
    assert found["one"].max() > 10
    np.testing.assert_array_equal(found["many"], found["one"])


def test_deciding_again_is_deciding_so_at_once(trained, predicted):
    results = trained.segment("exactly-again", edit=given(predicted), **chosen())
    for distance in (0.05, 1.0, 6.0):
        row = restitch(trained.layout, results.root.name, Sweep((distance,)), Execution())[0]
        settings = {"merge_distance": distance}
        at_once = trained.segment("exactly-at-once", edit=given(predicted), **chosen(**settings))
        assert row["segments"] == written(at_once.segments).max()
    with pytest.raises(SettingsError, match=r"clustered with True.*clusters again"):
        restitch(trained.layout, results.root.name, Sweep((distance,), {"exact": "false"}), Execution())


def test_what_was_not_exact_is_clustered_again_and_back(trained, predicted):
    names = ("exactly-not", "exactly-and-back")
    blocks = {}
    for name, sequence in zip(names, ((False,), (False, True, False)), strict=True):
        for exact in sequence:
            results = trained.segment(name, edit=given(predicted), **chosen(exact=exact))
            ran = Manifest.read(results.manifest("cluster", 0)).result
            assert (ran["computed"], ran["reused"], ran["exact"]) == (18, 0, exact)
            blocks[name, exact] = written(results.segments)
    np.testing.assert_array_equal(blocks["exactly-and-back", True], predicted["segments"])
    np.testing.assert_array_equal(blocks["exactly-and-back", False], blocks["exactly-not", False])


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"embeddings": "stream"}, "exact needs stored embeddings.*embeddings: keep"),
        ({"clustering": {"kind": "mutex"}}, "exact is for clustering kind modes, not mutex"),
    ],
)
def test_what_cannot_be_exact_is_refused(trained, section, said):
    tree = copy.deepcopy(trained.tree)
    tree["segmentations"]["balls"] |= {"stitching": {"exact": True}} | section
    with pytest.raises(SettingsError, match=said):
        parse_settings(tree)


def test_a_model_that_suggests_another_kind_is_refused_beside_the_first_blocks(trained):
    tree = copy.deepcopy(trained.tree)
    tree["segmentations"] = {"suggested": tree["segmentations"]["balls"] | {"stitching": {"exact": True}}}
    settings = parse_settings(tree)
    run_stage("plan", jobs.segmentation_job(settings, "plan", "suggested"), trained.layout)
    results, job = trained.layout.segmentation("suggested"), jobs.segmentation_job(settings, "estimate", "suggested")
    plan = replace(Plan.read(Manifest.read(results.manifest("plan"))), clustering_kind="mutex")
    with pytest.raises(SettingsError, match=r"the model suggests mutex; set clustering: {kind: modes}"):
        estimate(plan, job, results)
