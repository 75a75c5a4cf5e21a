"""All stages after training with what 0.4 readers open: a volume with coarser levels, and each stage reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from meshes import corners, ids_in, is_watertight
from ome_zarr_models.v04.image import Image
from ome_zarr_models.v04.image_label import ImageLabel
from pipeline import run_stage, segment_and_score

from spoco_blocks.engine.executors import Execution
from spoco_blocks.grid import Box
from spoco_blocks.settings import jobs, parse_settings
from spoco_blocks.stages.mesh import run_mesh
from spoco_blocks.stages.report import run_report
from spoco_blocks.stages.skeleton import run_skeleton
from spoco_blocks.stages.stitch.restitch import Sweep, restitch
from spoco_blocks.volumes import open_volume


@pytest.fixture(scope="module")
def segmented(trained, tmp_path_factory):
    """The same volume segmented as both versions: settings, layout, and results of each."""
    tree, raw = trained.with_long_volume(tmp_path_factory.mktemp("long"))
    section = tree["segmentations"].pop("balls") | {"volume": "long", "raw_pyramid": True}
    shapes = {"meshes": {"level": 1}, "skeletons": {"level": 0}}
    versions = {f"as-{version[-1]}": version for version in ("0.4", "0.5")}
    tree["segmentations"] = {name: section | shapes | {"ome_zarr_version": v} for name, v in versions.items()}
    settings = parse_settings(tree)
    for name in versions:
        segment_and_score(settings, name, trained.layout)
        run_stage("raw_pyramid", jobs.segmentation_job(settings, "raw_pyramid", name), trained.layout)
        for stage, run in (("mesh", run_mesh), ("skeleton", run_skeleton)):
            run(jobs.segmentation_job(settings, stage, name), trained.layout, Execution())
        run_report(jobs.segmentation_job(settings, "report", name), trained.layout)
    return trained.layout, raw, *(trained.layout.segmentation(name) for name in versions)


def levels(uri: str) -> list[np.ndarray]:
    group = zarr.open_group(uri, mode="r")
    return [group[str(level)][:] for level in range(len(list(group.array_keys())))]


def test_both_images_are_of_version_04_on_every_level(segmented):
    _, raw, old, new = segmented
    for model, uri, other in (
        (ImageLabel, old.segments, new.segments), (Image, old.raw_pyramid, new.raw_pyramid),
    ):  # fmt: skip
        group = zarr.open_group(uri, mode="r")
        (multiscale,) = model.from_zarr(group).attributes.multiscales
        assert multiscale.version == "0.4"
        assert [dataset.path for dataset in multiscale.datasets] == ["0", "1", "2"]
        assert {array.metadata.zarr_format for _, array in group.arrays()} == {2}
        assert not list(Path(uri).rglob("zarr.json"))
        for mine, theirs in zip(levels(uri), levels(other), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(levels(old.raw_pyramid)[0], raw)
    assert levels(old.segments)[2].any()


def test_every_later_stage_reads_it(segmented):
    _, _, old, new = segmented
    scores = json.loads(old.scores.read_text())
    assert scores == json.loads(new.scores.read_text())
    assert scores["ap50"] > 0.8
    numbers = pq.read_table(old.objects)["id"].to_pylist()
    assert ids_in(old.meshes) == numbers == [int(p.name) for p in sorted(old.skeletons.glob("[0-9]*"), key=_number)]
    for number in numbers:
        assert is_watertight(corners(old.meshes, number))
        np.testing.assert_array_equal(corners(old.meshes, number), corners(new.meshes, number))
        assert (old.skeletons / str(number)).read_bytes() == (new.skeletons / str(number)).read_bytes()
    for results in (old, new):
        page = results.report.read_text()
        assert f"{results.raw_pyramid} {results.segments}" in page
        assert "The segmentation is not there" not in page


def _number(path: Path) -> int:
    return int(path.name)


def test_stitching_is_tried_again_on_it(segmented):
    layout, *_ = segmented
    sweep = Sweep((1.0, 1.5), score=True)
    rows = [restitch(layout, name, sweep, Execution()) for name in ("as-4", "as-5")]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 2


def test_a_reader_of_boxes_sees_no_difference(segmented):
    _, _, old, new = segmented
    for level, box in ((0, Box((3, 5, 60), (33, 40, 144))), (1, Box((2, 0, 30), (20, 24, 72)))):
        np.testing.assert_array_equal(
            open_volume(old.segments, level=level).read(box), open_volume(new.segments, level=level).read(box)
        )
