"""What the report finds in the results folder that the other stages left behind."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from test_report import balls, content, table, written

from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.grid import Box
from spoco_blocks.kernels.contingency import contingency
from spoco_blocks.kernels.scores import scores
from spoco_blocks.settings.jobs import LabelsJob, ReportJob
from spoco_blocks.settings.sections import Source, TruthSettings
from spoco_blocks.stages.report import StageTime
from spoco_blocks.stages.report.gather import gather
from spoco_blocks.stages.report.seams import recut_text
from spoco_blocks.volumes import create_ome_zarr, create_zarr


def results_folder(tmp_path, shape=(16, 48, 48)):
    """A results folder as the stages leave it."""
    layout = Layout(tmp_path / "results")
    results, model = layout.segmentation("cells"), layout.model("net")
    truth = balls(shape)
    whole, size, chunks = Box.of_shape(shape), (100.0, 100.0, 100.0), (16, 16, 16)
    for name, array in (("raw", truth.astype(np.uint8)), ("truth", truth)):
        create_zarr(
            str(tmp_path / f"{name}.zarr"), shape=shape, dtype=array.dtype, chunk_shape=chunks, voxel_size_nm=size
        ).write(whole, array)
    create_ome_zarr(
        str(results.segments), shape=shape, dtype="uint32", chunk_shape=chunks, shard_shape=None, voxel_size_nm=size,
        levels=1, factors=(), is_label=True, name="cells",
    )[0].write(whole, truth)  # fmt: skip
    create_zarr(str(results.foreground), shape=shape, dtype="uint8", chunk_shape=chunks).write(
        whole, np.where(truth > 0, 255, 0).astype(np.uint8)
    )
    embeddings = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float16)
    create_zarr(str(results.embeddings), shape=shape, dtype="float16", chunk_shape=chunks, channels=4).write(
        whole, embeddings
    )
    objects = table(truth, size)
    columns = {"id": objects.id, "voxels": objects.voxels, "touches_border": objects.touches_border}
    columns |= {name: objects.box[:, i] for i, name in enumerate(("z0", "y0", "x0", "z1", "y1", "x1"))}
    columns |= {f"centroid_{a}_nm": objects.centroid_nm[:, i] for i, a in enumerate("zyx")}
    pq.write_table(pa.table(columns), results.objects)
    results.scores.write_text(json.dumps(asdict(scores(*contingency(truth, truth)))))
    machine = {"python": "3.11", "packages": {"numpy": "2.0"}}
    Manifest("train", "t", result={"warnings": ["Train longer."]}, seconds=60).write(model.manifest)
    model.curves.write_text("iteration,pull,push,validation_pull\n1,1,2,\n2,0.5,,0.25\n")
    for shard, seconds in enumerate((3.0, 5.0)):
        Manifest("embed", "e", result={"job": {"raw": 1}}, seconds=seconds).write(results.manifest("embed", shard))
    decided = {"gradient_threshold": 0.123456, "modes": 7, "kind": "modes"}
    Manifest("calibrate", "c", result=decided).write(results.manifest("calibrate"))
    Manifest("embed", "old", seconds=99).write(results.manifest("embed", 2))
    region = [[0, 0, 0], [16, 48, 24]]
    Manifest("evaluate", "v", result={"region": region}, finished="2025", machine=machine).write(
        results.manifest("evaluate")
    )
    return layout


def report_job(tmp_path, truth=True):
    raw = Source(uri=str(tmp_path / "raw.zarr"))
    return ReportJob(
        segmentation="cells",
        volume=LabelsJob(volume="stack", raw=raw, voxel_size_nm=None, labels=None),
        model="net",
        truth=TruthSettings(uri=str(tmp_path / "truth.zarr")) if truth else None,
    )


def test_gathers_what_the_stages_left_behind(tmp_path):
    found = gather(results_folder(tmp_path), report_job(tmp_path))
    assert found.stages == [
        StageTime("train", 60), StageTime("embed", 5.0, (3.0, 5.0)), StageTime("calibrate", 0), StageTime("evaluate", 0)
    ]  # fmt: skip
    assert sorted(found.decided.values()) == ["0.1235", "7", "modes"]
    assert found.notes == ["Train longer."]
    assert found.scored == Box((0, 0, 0), (16, 48, 24))
    assert found.scores["ap50"] == 1
    assert found.versions == {"numpy": "2.0", "python": "3.11"}
    assert found.provenance == {"train": "t", "embed": "e", "calibrate": "c", "evaluate": "v"}
    assert [row["loss"] for _, row in found.curves] == [3.0, 0.5]
    assert len(found.objects) == len(np.unique(found.picture.segments)) - 1
    np.testing.assert_array_equal(found.picture.truth, found.picture.segments)
    np.testing.assert_array_equal(found.picture.foreground > 0.5, found.picture.truth > 0)
    assert found.picture.embedding_rgb.shape == (3, 16, 48, 48)
    text = " ".join(" ".join(written(tmp_path, found)[1].text).split())
    assert "the core of an object 0.1235" in text


def test_gathers_what_there_is(tmp_path):
    layout = results_folder(tmp_path)
    model = layout.model("net")
    model.manifest.unlink()
    model.curves.unlink()
    layout.segmentation("cells").scores.write_text('{"note": "no truth"}')
    found = gather(layout, report_job(tmp_path, truth=False))
    assert found.scores is None
    assert found.picture.truth is None
    assert found.curves == []
    assert "given as a checkpoint" in " ".join(written(tmp_path, found)[1].text)


def test_says_where_blocks_show(tmp_path):
    worst = {"axis": "y", "start": [0, 19, 1234], "stop": [12, 21, 1300], "blocks": [0, 1], "sections": 9, "cut": 5}
    seams = {
        "cut_at_seams": 0.125,
        "cut_inside": 0.04,
        "sections_at_seams": 3210,
        "sections_inside": 7,
        "worst": [worst],
    }
    text = " ".join(" ".join(written(tmp_path, content(seams=seams))[1].text).split())
    for words in ("of 3,210 sections", "12.5 % end there", "4.0 % do", "0, 19, 1,234", "12, 21, 1,300", "Worst seams"):
        assert words in text
    nothing = seams | {"cut_at_seams": None, "sections_at_seams": 0, "worst": []}
    assert "Seams" not in " ".join(written(tmp_path, content(seams=nothing))[1].text)


def test_names_the_raw_data_that_viewers_open(tmp_path):
    layout, job = results_folder(tmp_path), report_job(tmp_path)
    results = layout.segmentation("cells")
    assert gather(layout, job).stores == (results.segments,)
    Manifest("plan", "now").write(results.manifest("plan"))
    # One that was made of another plan may show another volume.
    for made_of, stores in (("now", ("copy.zarr", results.segments)), ("before", (results.segments,))):
        Manifest("raw_pyramid", "r", {"plan": made_of}, {"uri": "copy.zarr"}).write(results.manifest("raw_pyramid"))
        assert gather(layout, job).stores == stores
    raw = str(tmp_path / "levels.zarr")
    create_ome_zarr(
        raw, shape=(16, 48, 48), dtype="uint8", chunk_shape=(16, 16, 16), shard_shape=None, levels=2,
        factors=[(2, 2, 2)], voxel_size_nm=(100.0, 100.0, 100.0), is_label=False, name="raw",
    )  # fmt: skip
    volume = job.volume.model_copy(update={"raw": Source(uri=raw)})
    assert gather(layout, job.model_copy(update={"volume": volume})).stores == (raw, results.segments)


def test_says_of_one_block_and_of_several_how_they_agree():
    found = {"blocks": 1, "recut_ari": 0.98765, "least_recut_ari": 0.98765, "differing_voxels": None}
    one, several = recut_text(found), recut_text(found | {"blocks": 8, "least_recut_ari": 0.5, "differing_voxels": 0})
    assert "1 block that lies across seams agrees with" in one
    assert "index of 0.9877. At 1" in one
    assert "8 blocks that lie across seams agree with" in several
    assert "index of 0.9877, every voxel alike; the one that agrees least to 0.5000. At 1" in several
    assert recut_text(None) == recut_text({"blocks": 0}) == ""
