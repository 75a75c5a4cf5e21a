"""Bad input stops before work is spent, and the message says what was got, what was expected, what to do."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms import ball_configuration, balls, store

from spoco_blocks import cli
from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.errors import BlockError, CheckpointError, LabelsError, LedgerError, VolumeError, VolumeNotFoundError
from spoco_blocks.grid import Box
from spoco_blocks.settings import jobs, parse_settings
from spoco_blocks.stages.check import check_shapes, check_sources
from spoco_blocks.stages.labels import run_labels
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.plan.run import run_plan
from spoco_blocks.stages.train import run_train
from spoco_blocks.volumes import create_zarr, open_volume


@pytest.fixture
def tree(tmp_path):
    return ball_configuration(tmp_path)


def index(tree, tmp_path):
    settings = parse_settings(tree)
    return run_labels(jobs.labels_job(settings, "balls"), Layout(tmp_path / "r").volume("balls"), Execution())


def test_missing_file(tree, tmp_path):
    tree["volumes"]["balls"]["raw"]["uri"] = str(tmp_path / "row.zarr")
    with pytest.raises(VolumeNotFoundError, match=r"row\.zarr.*raw\.zarr"):
        index(tree, tmp_path)


def test_wrong_axes(tree, tmp_path):
    tree["volumes"]["balls"]["raw"]["axes"] = "czyx"
    with pytest.raises(VolumeError, match="czyx"):
        index(tree, tmp_path)


def test_shapes_of_raw_and_labels_differ(tree, tmp_path):
    tree["volumes"]["balls"]["labels"]["uri"] = store(tmp_path / "small.zarr", balls()[1][:20])
    with pytest.raises(VolumeError, match=r"\(20, 48, 64\).*\(40, 48, 64\).*same voxels"):
        index(tree, tmp_path)


def test_labels_without_objects(tree, tmp_path):
    tree["volumes"]["balls"]["labels"]["uri"] = store(tmp_path / "empty.zarr", np.zeros((40, 48, 64), np.uint32))
    with pytest.raises(LabelsError, match=r"labels no object in .*0 = not labelled"):
        index(tree, tmp_path)
    tree = ball_configuration(tmp_path / "again")
    tree["volumes"]["balls"]["labels"]["min_voxels"] = 10**6
    with pytest.raises(LabelsError, match=r"lower labels\.min_voxels"):
        index(tree, tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_in_raw(tree, tmp_path, value):
    raw = balls()[0].astype(np.float32)
    raw[3, 4, 5] = value
    tree["volumes"]["balls"]["raw"]["uri"] = store(tmp_path / "nan.zarr", raw)
    with pytest.raises(BlockError, match=r"1 voxels that are not finite.*replace them"):
        index(tree, tmp_path)


def test_constant_raw_and_no_voxel_size(tree, tmp_path):
    tree["volumes"]["balls"]["raw"]["uri"] = store(tmp_path / "constant.zarr", np.full((40, 48, 64), 7, np.uint8))
    with pytest.raises(VolumeError, match="is constant"):
        index(tree, tmp_path)
    uri = str(tmp_path / "unsized.zarr")
    create_zarr(uri, shape=(40, 48, 64), dtype="uint8", chunk_shape=(20, 24, 32))
    tree["volumes"]["balls"]["raw"]["uri"] = uri
    with pytest.raises(VolumeError, match=r"does not state its voxel size.*voxel_size_nm"):
        index(tree, tmp_path)


def test_region_outside_and_negative_labels(tree, tmp_path):
    changed = copy.deepcopy(tree)
    changed["volumes"]["balls"]["labels"]["region"] = {"start_nm": [10**6, None, None]}
    with pytest.raises(VolumeError, match="holds no voxel"):
        index(changed, tmp_path)
    tree["volumes"]["balls"]["labels"]["uri"] = store(tmp_path / "minus.zarr", np.full((40, 48, 64), -1, np.int32))
    with pytest.raises(BlockError, match="negative"):
        index(tree, tmp_path)


def test_a_stage_before_its_time(tree, tmp_path):
    with pytest.raises(LedgerError, match="run the stage that writes it first"):
        run_train(jobs.train_job(parse_settings(tree), "balls"), Layout(tmp_path / "r"), threads=1)


def changed_checkpoint(trained, tmp_path, **changes):
    path = trained.layout.model("balls").checkpoint
    data = torch.load(path, weights_only=True) | changes
    torch.save(data, tmp_path / "changed.pt")
    return str(tmp_path / "changed.pt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 1}, "version 1, this program reads version 4"),
        ({"voxel_size_nm": (250.0, 250.0, 250.0)}, "choose the `level`"),
        ({"planar": True}, "was trained on 2D images"),
    ],
)
def test_checkpoints_for_other_data(trained, tmp_path, changes, message):
    tree = copy.deepcopy(trained.tree)
    tree["models"]["balls"] = {"checkpoint": changed_checkpoint(trained, tmp_path, **changes)}
    job = jobs.segmentation_job(parse_settings(tree), "plan", "balls")
    with pytest.raises(CheckpointError, match=message):
        run_plan(job, trained.layout)
    assert not trained.layout.segmentation("balls").root.exists()


def test_the_command_line_says_it_without_a_traceback(tree, tmp_path, capsys):
    tree["volumes"]["balls"]["raw"]["uri"] = str(tmp_path / "row.zarr")
    job = jobs.canonical(jobs.labels_job(parse_settings(tree), "balls"))
    assert cli.main(["labels", job, "--results", str(tmp_path / "r")]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("VolumeNotFoundError: ")
    assert cli.main(["labels", "{}"]) == 1
    assert "Field required" in capsys.readouterr().err


def test_check_reads_no_voxels_and_finds_what_does_not_fit(tree, tmp_path, capsys):
    import yaml

    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    assert cli.main(["check", str(path)]) == 0
    assert "(40, 48, 64) voxels" in capsys.readouterr().out
    tree["volumes"]["balls"]["truth"]["uri"] = store(tmp_path / "small.zarr", balls()[1][:20])
    path.write_text(yaml.safe_dump(tree))
    assert cli.main(["check", str(path)]) == 1
    assert "same voxels" in capsys.readouterr().err


def test_one_model_for_volumes_of_different_kinds(tree, tmp_path):
    other = store(tmp_path / "coarse.zarr", balls()[0], voxel_size_nm=(1000.0, 500.0, 500.0))
    tree["volumes"]["coarse"] = {"raw": {"uri": other}, "labels": tree["volumes"]["balls"]["labels"]}
    tree["models"]["balls"]["volumes"] = ["balls", "coarse"]
    check_sources(jobs.check_job(parse_settings(tree)))
    tree["segmentations"]["balls"]["volume"] = "coarse"
    with pytest.raises(VolumeError, match=r"at \(500.* cannot serve both volumes: balls has.*coarse has"):
        check_sources(jobs.check_job(parse_settings(tree)))
    tree["models"]["balls"]["voxel_size_nm"] = [1000, 500, 500]
    check_sources(jobs.check_job(parse_settings(tree)))
    tree["segmentations"]["balls"]["volume"] = "balls"
    with pytest.raises(VolumeError, match=r"at \(1000.* cannot serve both volumes"):
        check_sources(jobs.check_job(parse_settings(tree)))


def test_a_model_for_voxel_sizes_too_far_apart(tree):
    tree["models"]["balls"]["voxel_size_nm"] = [2000, 500, 500]
    tree["segmentations"] = {}
    check_sources(jobs.check_job(parse_settings(tree)))
    tree["models"]["balls"]["voxel_size_nm"] = [500, 500, 2100]
    with pytest.raises(VolumeError, match=r"volume balls has \(500.*more than 4 times.*`level` of its pyramid"):
        check_sources(jobs.check_job(parse_settings(tree)))


@pytest.mark.parametrize("kind", ["meshes", "skeletons"])
def test_shapes_of_images_and_of_levels_that_will_not_be_there(tree, tmp_path, kind):
    tree["segmentations"]["balls"][kind] = {"level": 1}
    with pytest.raises(VolumeError, match=rf"balls\.{kind}\.level is 1, .*levels 0 to 0"):
        check_sources(jobs.check_job(parse_settings(tree)))
    image = open_volume(store(tmp_path / "image.zarr", balls()[0][:1]))
    tree["segmentations"]["balls"][kind] = {}
    job = jobs.check_job(parse_settings(tree))
    opened = check_sources(job)
    with pytest.raises(VolumeError, match=rf"balls\.{kind}: .* 2D images"):
        check_shapes(job, opened | {"balls": image})


def test_further_labels_and_dense_regions_must_fit(tree, tmp_path):
    labels = tree["volumes"]["balls"]["labels"]
    labels["also"] = [{"uri": store(tmp_path / "small.zarr", balls()[1][:20])}]
    with pytest.raises(VolumeError, match=r"labels\.also .*\(20, 48, 64\).*same voxels"):
        check_sources(jobs.check_job(parse_settings(tree)))
    labels |= {"also": [], "dense_regions": [{"start_nm": [10**6, None, None]}]}
    with pytest.raises(VolumeError, match="holds no voxel"):
        check_sources(jobs.check_job(parse_settings(tree)))


def test_a_network_that_diverged_is_told_of(trained, tmp_path):
    results = trained.segment("finite")
    output = Plan.read(Manifest.read(results.manifest("plan"))).predicted
    file = changed_checkpoint(trained, tmp_path)
    state = torch.load(file, weights_only=True)
    for tensor in state["weights_ema"].values():
        if tensor.is_floating_point():
            tensor.fill_(float("nan"))
    torch.save(state, file)
    broken = replace(output, checkpoint=file, identity="diverged")
    with pytest.raises(CheckpointError, match="lower learning_rate"):
        broken.read(Box((0, 0, 0), (8, 8, 8)))


def test_a_plan_of_another_version_says_what_to_do(trained):
    manifest = Manifest.read(trained.segment("finite").manifest("plan"))
    older = {name: value for name, value in manifest.result["plan"].items() if name != "object_distance"}
    with pytest.raises(LedgerError, match=r"differs in: object_distance.*remove plan\.json"):
        Plan.read(replace(manifest, result={"plan": older}))
