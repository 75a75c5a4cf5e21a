"""Large arrays outside of the results folder: on S3, through faults, or on another disk; with the same result."""

from __future__ import annotations

import copy
from itertools import count

import numpy as np
import pyarrow.parquet as pq
import pytest
from pipeline import Trained, run_stage, segment_and_score
from s3_server import FaultyS3

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout, SegmentationResults
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.errors import BlockError, VolumeError
from spoco_blocks.grid import Box
from spoco_blocks.settings import jobs, parse_settings
from spoco_blocks.stages.estimate import disk_used, run_estimate
from spoco_blocks.stages.plan.stores import choose_place
from spoco_blocks.stages.report import run_report
from spoco_blocks.stages.stitch.restitch import Sweep, restitch
from spoco_blocks.volumes import create_zarr, find_pyramid, open_volume, remove_tree

ARRAYS = ("embeddings", "foreground", "affinities", "fragments", "segments")
KINDS = ("SlowDown", "dropped", 0.05, "lost", "InternalError", "cut")


def whole(uri, level=0):
    volume = open_volume(uri, level=level)
    return volume.read(Box.of_shape(volume.meta.shape))


def upload(uri: str, to: str) -> str:
    meta, voxels = open_volume(uri).meta, whole(uri)
    copied = create_zarr(
        to, shape=meta.shape, dtype=meta.dtype, chunk_shape=meta.chunk_shape, voxel_size_nm=meta.voxel_size_nm
    )
    copied.write(Box.of_shape(meta.shape), voxels)
    return to


@pytest.fixture(scope="module")
def on_s3(trained, s3):
    """The trained model, its volume in a bucket, and arrays that go there."""
    bucket, tree = s3.new_bucket("phantoms"), copy.deepcopy(trained.tree)
    volume = tree["volumes"]["balls"]
    volume["raw"]["uri"] = upload(volume["raw"]["uri"], f"{bucket}/raw.zarr")
    volume["labels"]["uri"] = volume["truth"]["uri"] = upload(volume["truth"]["uri"], f"{bucket}/labels.zarr")
    tree["execution"]["arrays"] = f"{bucket}/results"
    return Trained(trained.layout, tree)


def settings_of(trained: Trained, name: str, **changes):
    section = trained.tree["segmentations"]["balls"] | changes
    return parse_settings(trained.tree | {"segmentations": {name: section}})


def every(number: int):
    """Let each so-many-th request fail, in every way in turn."""
    asked = count(1)
    return lambda *_: KINDS[n // number % len(KINDS)] if (n := next(asked)) % number == 0 else None


@pytest.fixture(scope="module")
def local(trained):
    return trained.segment("local-disk")


@pytest.fixture(scope="module")
def remote(on_s3, s3: FaultyS3):
    """All stages, while requests fail."""
    with s3.failing(every(40)):
        results = segment_and_score(settings_of(on_s3, "faulty-s3"), "faulty-s3", on_s3.layout)
    assert s3.faults >= 2 * len(KINDS)
    return results


def test_the_result_is_that_of_a_local_disk_whatever_goes_wrong(local, remote):
    assert remote.segments == "s3://phantoms/results/faulty-s3/segmentation.zarr"
    assert not list(remote.root.rglob("*.zarr"))
    for name in ARRAYS:
        np.testing.assert_array_equal(whole(getattr(remote, name)), whole(getattr(local, name)))
    for level in range(Manifest.read(local.manifest("plan")).result["plan"]["levels"]):
        np.testing.assert_array_equal(whole(remote.segments, level), whole(local.segments, level))
    assert pq.read_table(remote.objects).equals(pq.read_table(local.objects))
    assert remote.scores.read_text() == local.scores.read_text()


def test_what_looks_at_arrays_later_finds_them(on_s3, local, remote):
    settings, layout = settings_of(on_s3, "faulty-s3"), on_s3.layout
    assert disk_used(remote) == disk_used(local)
    rows = restitch(layout, "faulty-s3", Sweep((1.0,), score=True), Execution())
    assert rows == restitch(layout, "local-disk", Sweep((1.0,), score=True), Execution())
    run_estimate(jobs.segmentation_job(settings, "estimate", "faulty-s3"), layout, None)
    run_report(jobs.segmentation_job(settings, "report", "faulty-s3"), layout)
    assert "The segmentation is not there" not in remote.report.read_text()


def test_a_block_that_cannot_be_written_is_named_and_the_others_are_done(on_s3, local, remote, s3, impatient):
    plan, relabel = (
        jobs.segmentation_job(settings_of(on_s3, "faulty-s3"), stage, "faulty-s3") for stage in ("plan", "relabel")
    )
    remove_tree(remote.segments)
    run_stage("plan", plan, on_s3.layout)
    bad = "/phantoms/results/faulty-s3/segmentation.zarr/0/c/1/0/1"
    message = r"1 of 8 blocks failed(?s:.*)\[20:40, 0:24, 32:64\].*reduce your request rate.*AWS_MAX_ATTEMPTS"
    fails = lambda method, path, _: "SlowDown" if (method, path) == ("PUT", bad) else None  # noqa: E731
    with s3.failing(fails), pytest.raises(BlockError, match=message) as failed:
        run_stage("relabel", relabel, on_s3.layout, Execution("threads", 2, retries=0))
    assert s3.secret not in str(failed.value)
    run_stage("relabel", relabel, on_s3.layout)
    assert Manifest.read(remote.manifest("relabel", 0)).result["computed"] == 1
    np.testing.assert_array_equal(whole(remote.segments), whole(local.segments))


def test_arrays_go_to_another_disk(trained, local, tmp_path):
    tree = trained.tree | {"execution": {"arrays": f"{tmp_path}/scratch/"}}
    results = Trained(trained.layout, tree).segment("other-disk")
    assert sorted(path.stem for path in (tmp_path / "scratch/other-disk").iterdir()) == [
        "affinities", "embeddings", "foreground", "fragments", "segmentation",
    ]  # fmt: skip
    assert not list(results.root.rglob("*.zarr"))
    np.testing.assert_array_equal(whole(results.segments), whole(local.segments))
    back = Trained(trained.layout, trained.tree).segment("other-disk")
    assert back.segments == f"{back.root}/segmentation.zarr"
    assert Manifest.read(back.manifest("embed", 0)).result["computed"] == 8


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_copy_of_raw_data_goes_there_too(on_s3, s3, version):
    name = f"raw-{version[-1]}"
    settings = settings_of(on_s3, name, raw_pyramid=True, ome_zarr_version=version)
    with s3.failing(every(25)):
        for stage in ("plan", "raw_pyramid"):
            run_stage(stage, jobs.segmentation_job(settings, stage, name), on_s3.layout)
    results = on_s3.layout.segmentation(name)
    assert results.raw_pyramid == f"s3://phantoms/results/{name}/raw_pyramid.zarr"
    assert find_pyramid(results.raw_pyramid)[0].version == version
    np.testing.assert_array_equal(whole(results.raw_pyramid), whole(on_s3.tree["volumes"]["balls"]["raw"]["uri"]))
    assert not list(results.root.rglob("*.zarr"))


def test_a_place_belongs_to_one_results_folder(on_s3, remote, tmp_path):
    job = jobs.segmentation_job(settings_of(on_s3, "faulty-s3"), "plan", "faulty-s3")
    elsewhere = SegmentationResults(tmp_path / "faulty-s3")
    with pytest.raises(VolumeError, match=r"is there already.*execution.arrays"):
        choose_place(elsewhere, job.arrays)
    assert not elsewhere.place.exists()
    moved = choose_place(elsewhere, "s3://phantoms/others/")
    assert moved.fragments == "s3://phantoms/others/faulty-s3/fragments.zarr"
    assert Layout(tmp_path).segmentation("none").arrays is None
    assert choose_place(moved, None) == elsewhere
