"""What the annotation curve derives from a configuration, and what it leaves as it is."""

from __future__ import annotations

import copy
import re

import pytest

from spoco_blocks.errors import SettingsError
from spoco_blocks.settings import annotation_jobs, jobs, parse_settings
from spoco_blocks.settings.annotation_curve import curve_runs, curve_settings

TREE = {
    "volumes": {
        "v": {"raw": {"uri": "a"}, "labels": {"uri": "b", "keep_fraction": 0.3, "min_voxels": 7}},
        "w": {"raw": {"uri": "c"}, "labels": {"uri": "d"}},
        "t": {"raw": {"uri": "e"}, "truth": {"uri": "f"}},
    },
    "models": {"m": {"volumes": ["v", "w"], "training": {"iterations": 5, "seed": 9}}, "given": {"checkpoint": "x.pt"}},
    "segmentations": {
        "g": {"volume": "t", "model": "given"},
        "s": {"volume": "t", "model": "m", "foreground_threshold": 0.7},
    },
}


def configured(**curve):
    return parse_settings(TREE | {"annotation_curve": curve})


def test_every_fraction_seed_and_variant_is_trained_once():
    settings = configured()
    runs = curve_runs(settings)
    assert len(runs) == 5 * 3 * 2 == len({run.segmentation for run in runs})
    assert {run.fraction for run in runs} == {0.02, 0.05, 0.1, 0.3, 1.0}
    derived = curve_settings(settings)
    assert len(derived.segmentations) == 2 + 30
    assert len(derived.models) == 2 + 30
    # Both variants learn from the same objects.
    assert len(derived.volumes) == 3 + 2 * 15
    assert all(re.fullmatch("[A-Za-z0-9_-]+", name) for name in (*derived.volumes, *derived.models))


def test_labels_differ_in_fraction_and_seed_only():
    settings = configured(fractions=[0.025], seeds=[4])
    derived = curve_settings(settings)
    full, plain = curve_runs(settings)
    assert full.volumes == plain.volumes == ("v--f2_5-s4", "w--f2_5-s4")
    before, after = settings.volumes["v"], derived.volumes["v--f2_5-s4"]
    assert after.raw == before.raw
    assert after.labels == before.labels.model_copy(update={"keep_fraction": 0.025, "seed": 4})
    assert derived.models[full.model].training == settings.models["m"].training.model_copy(update={"seed": 4})


def test_pull_and_push_alone_leaves_everything_else_out():
    settings = configured(fractions=[0.1], seeds=[0])
    derived = curve_settings(settings)
    full, plain = (derived.models[run.model] for run in curve_runs(settings))
    dumped = [model.model_dump() for model in (full, plain)]
    losses = [model["training"].pop("loss") for model in dumped]
    assert (dumped[0].pop("network")["affinities"], dumped[1].pop("network")["affinities"]) == (True, False)
    assert dumped[0] == dumped[1]
    changed = {key: losses[1][key] for key in losses[0] if losses[0][key] != losses[1][key]}
    assert changed == {"dice": 0.0, "consistency": 0.0, "unlabelled_push": 0.0, "affinity": 0.0}


def test_what_the_user_named_is_as_before():
    settings = configured()
    derived = curve_settings(settings)
    assert {name: derived.segmentations[name] for name in "gs"} == settings.segmentations
    assert derived.segmentations["s--full-f30-s1"].model_copy(update={"model": "m"}) == settings.segmentations["s"]
    assert jobs.train_job(derived, "m") == jobs.train_job(settings, "m")
    for run in curve_runs(settings):
        jobs.train_job(derived, run.model)
        jobs.segmentation_job(derived, "plan", run.segmentation)
    curve = annotation_jobs.annotation_curve_job(settings)
    assert jobs.read_job(annotation_jobs.AnnotationCurveJob, jobs.canonical(curve)) == curve
    baseline = annotation_jobs.annotation_baseline_job(settings)
    assert [volume.volume for volume in baseline.training] == ["v", "w"]
    assert jobs.read_job(annotation_jobs.AnnotationBaselineJob, jobs.canonical(baseline)) == baseline


def test_the_first_segmentation_that_can_be_varied_is_taken():
    assert curve_runs(configured())[0].segmentation.startswith("s--")
    named = configured(segmentation="g")
    assert curve_settings(named) == named
    with pytest.raises(SettingsError, match=r"segmentations\.g does not have .*no checkpoint"):
        curve_runs(named)
    tree = copy.deepcopy(TREE)
    del tree["volumes"]["t"]["truth"]
    settings = parse_settings(tree)
    assert curve_settings(settings) == settings
    with pytest.raises(SettingsError, match=r"no segmentation has both .* add `truth`"):
        annotation_jobs.annotation_curve_job(settings)


@pytest.mark.parametrize(
    ("curve", "message"),
    [
        ({"segmentation": "x"}, "names 'x', which is not defined; defined are: g, s"),
        ({"fractions": [0.1, 0.1]}, "names a value twice"),
        ({"fractions": [0.0]}, "greater than 0"),
        ({"fractions": []}, "at least 1 item"),
        ({"seeds": []}, "at least 1 item"),
        ({"seeds": [-1]}, "greater than or equal to 0"),
        ({"fraction": [0.1]}, "did you mean 'fractions'"),
    ],
)
def test_mistakes_are_named(curve, message):
    with pytest.raises(SettingsError, match=message):
        configured(**curve)
