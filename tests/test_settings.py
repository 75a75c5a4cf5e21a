"""A configuration is refused by what is wrong with it, before anything runs."""

from __future__ import annotations

import copy

import pytest

from spoco_blocks.clustering import METHODS, Hdbscan
from spoco_blocks.errors import SettingsError
from spoco_blocks.settings import jobs, load_settings, parse_settings
from spoco_blocks.settings.network import NetworkSettings

TREE = {
    "volumes": {"v": {"raw": {"uri": "raw.zarr"}, "labels": {"uri": "labels.zarr"}}},
    "models": {"m": {"volumes": ["v"]}},
    "segmentations": {"s": {"volume": "v", "model": "m"}},
}


def changed(path: str, value: object) -> dict:
    tree = copy.deepcopy(TREE)
    *parents, last = path.split(".")
    node = tree
    for key in parents:
        node = node.setdefault(key, {})
    node[last] = value
    return tree


def test_defaults_suffice():
    settings = parse_settings(TREE)
    assert settings.segmentations["s"].clustering is None
    assert settings.models["m"].training.coordinates == "auto"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("segmentations.s.clusterin", {}, "did you mean 'clustering'"),
        ("models.m.training.loss.delta_varr", 1, "did you mean 'delta_var'"),
        ("segmentations.s.clustering", {"kind": "modes", "bandwith": 1}, "did you mean 'bandwidth'"),
        ("segmentations.s.clustering", {"kind": "magic"}, "'modes', 'mutex', 'embedding_mutex', 'mean_shift'"),
        ("segmentations.s.clustering", {"kind": "modes", "bandwidth": -1}, "bandwidth must be more than 0"),
        ("segmentations.s.model", "n", "not defined; defined are: m"),
        ("models.m.volumes", ["w"], "not defined; defined are: v"),
        ("models.m.checkpoint", "a.pt", "not both"),
        ("volumes.v.labels", None, "has no labels"),
        ("models.m.training.iterations", 0, "greater than or equal to 1"),
        ("volumes.v.voxel_size_nm", [1, 1], "Field required"),
        ("models.m--n", {"volumes": ["v"]}, "models.m--n: '--' in a name is kept for what the workflow derives"),
        ("models.n", {"checkpoint": "a.pt", "pseudo_labels": {"rounds": 1}}, "has no rounds of pseudo_labels"),
        ("models.m.pseudo_labels.agreement", 0.3, "greater than or equal to 0.5"),
        ("volumes.bad name", {"raw": {"uri": "x"}}, "should match pattern"),
        ("volumes.v.labels.region", {"stop_nm": [1, 1, 1], "start_voxels": [0, 0, 0]}, "not in both"),
        ("volumes.v.labels", {"uri": "x", "partial": True, "dense": True}, "use dense_regions"),
        ("volumes.v.labels", {"uri": "x", "partial": True, "background_fraction": 0.1}, "use dense_regions"),
        ("volumes.v.labels.keep_fraction", 1.5, "less than or equal to 1"),
    ],
)
def test_mistakes_are_named(path, value, message):
    with pytest.raises(SettingsError, match=message):
        parse_settings(changed(path, value))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(SettingsError, match="no configuration at"):
        load_settings(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(SettingsError, match="is not YAML"):
        load_settings(tmp_path / "bad.yaml")


def test_a_method_is_one_line_in_the_table_and_one_in_the_settings():
    for kind in METHODS:
        settings = parse_settings(changed("segmentations.s.clustering", {"kind": kind}))
        assert settings.segmentations["s"].clustering.kind == kind
        assert jobs.segmentation_job(settings, "plan", "s").both_networks == (kind == "consistency")


def test_jobs_survive_json():
    settings = parse_settings(changed("segmentations.s.clustering", {"kind": "hdbscan"}))
    for stage in ("plan", "embed", "calibrate", "cluster", "stitch", "relabel", "pyramid", "evaluate", "report"):
        job = jobs.segmentation_job(settings, stage, "s")
        assert jobs.read_job(type(job), jobs.canonical(job)) == job
    assert isinstance(jobs.segmentation_job(settings, "cluster", "s").clustering, Hdbscan)
    train = jobs.train_job(settings, "m")
    assert jobs.read_job(jobs.TrainJob, jobs.canonical(train)) == train
    with pytest.raises(SettingsError, match="unknown key 'x'"):
        jobs.read_job(jobs.SegmentationJob, '{"segmentation": "s", "x": 1}')
    with pytest.raises(SettingsError, match="no stage 'embd'"):
        jobs.segmentation_job(settings, "embd", "s")


def test_a_key_belongs_to_its_stage_only():
    before, after = parse_settings(TREE), parse_settings(changed("segmentations.s.clustering", {"kind": "mean_shift"}))
    same = {
        stage: jobs.canonical(jobs.segmentation_job(before, stage, "s"))
        == jobs.canonical(jobs.segmentation_job(after, stage, "s"))
        for stage in ("plan", "embed", "calibrate", "cluster", "stitch", "relabel", "evaluate", "report")
    }
    assert [stage for stage, equal in same.items() if not equal] == ["calibrate", "cluster"]
    assert jobs.train_job(before, "m") == jobs.train_job(after, "m")


@pytest.mark.parametrize(("first", "then", "again"), [(0, 50, {"estimate", "cluster", "stitch"}), (50, 90, {"stitch"})])
def test_filling_holes_clusters_again_when_it_begins_and_predicts_nothing(first, then, again):
    before, after = (
        parse_settings(changed("segmentations.s.stitching", {"fill_holes_voxels": n})) for n in (first, then)
    )
    stages = ("plan", "embed", "calibrate", "estimate", "cluster", "stitch", "relabel", "pyramid")
    jobs_of = [{stage: jobs.segmentation_job(s, stage, "s") for stage in stages} for s in (before, after)]
    assert {stage for stage in stages if jobs_of[0][stage] != jobs_of[1][stage]} == again


@pytest.mark.parametrize(("kind", "made"), [("meshes", "mesh"), ("skeletons", "skeleton")])
def test_meshes_and_skeletons_are_made_where_they_are_asked_for(kind, made):
    with pytest.raises(SettingsError, match=f"no stage '{made}'"):
        jobs.segmentation_job(parse_settings(TREE), made, "s")
    settings = parse_settings(changed(f"segmentations.s.{kind}", {}))
    job = jobs.segmentation_job(settings, made, "s")
    assert jobs.read_job(type(job), jobs.canonical(job)) == job
    # Nothing else is made again.
    for stage in ("plan", "stitch", "relabel", "report"):
        assert jobs.segmentation_job(settings, stage, "s") == jobs.segmentation_job(parse_settings(TREE), stage, "s")


@pytest.mark.parametrize("kind", ["meshes", "skeletons"])
@pytest.mark.parametrize("axes", ["yx", "nyx", "cnyx"])
def test_images_have_no_meshes_and_no_skeletons(axes, kind):
    tree = changed(f"segmentations.s.{kind}", {})
    tree["volumes"]["v"]["raw"]["axes"] = axes
    with pytest.raises(SettingsError, match=f"{kind} is for 3D volumes"):
        parse_settings(tree)


def test_a_preset_gives_the_numbers_that_are_left_out():
    assert NetworkSettings().size == (16, 3, 8)
    assert NetworkSettings(preset="base").size == (32, 4, 16)
    assert NetworkSettings(preset="large", levels=3).size == (64, 3, 16)
