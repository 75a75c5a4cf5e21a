"""The whole workflow on a small volume: what is run, what is run again, and what survives a kill."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from meshes import corners, ids_in, is_watertight
from phantoms import ball_configuration, write_configuration

from spoco_blocks.engine.ledger import Records
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.grid import Box
from spoco_blocks.settings import jobs, parse_settings
from spoco_blocks.volumes import open_volume


def rules_to_run(output: str) -> set[str]:
    return set(re.findall(r"^(?:local)?rule (\w+):", output, re.MULTILINE)) - {"all"}


def digest(folder: Path) -> str:
    """Digest of an array's decoded voxels."""
    volume = open_volume(folder)
    return hashlib.sha256(np.ascontiguousarray(volume.read(Box.of_shape(volume.meta.shape))).tobytes()).hexdigest()


def arrays(results: Path) -> dict[str, str]:
    names = ("embeddings.zarr", "foreground.zarr", "fragments.zarr", "segmentation.zarr")
    return {name: digest(results / name) for name in names}


@pytest.fixture
def configured(tmp_path):
    return ball_configuration(tmp_path, iterations=120)


def test_from_labels_to_report_and_again(snakemake, configured, tmp_path):
    snakemake(config := write_configuration(tmp_path, configured))
    results = tmp_path / "results/segmentations/balls"
    check_results(results)
    assert "Nothing to be done" in snakemake(config).stderr
    before = arrays(results)

    def would_run() -> set[str]:
        return rules_to_run(snakemake(write_configuration(tmp_path, configured), "--dry-run").stdout)

    check_what_a_change_runs(configured, would_run)
    configured["execution"] = {"shards": 1, "executor": "threads"}
    snakemake(write_configuration(tmp_path, configured))
    assert arrays(results) == before
    embedded = Manifest.read(results / "embed/shard-0.json").result
    assert (embedded["computed"], embedded["reused"]) == (0, 8)
    check_what_viewers_show(results)
    assert digest(results / "raw_pyramid.zarr") == digest(tmp_path / "raw.zarr")


def check_results(results: Path) -> None:
    """Scores are good, the table of objects is that of the segmentation, and the report needs nothing else."""
    scores = json.loads((results / "scores.json").read_text())
    assert scores["n_truth"] == 24
    assert scores["ap50"] > 0.8
    assert scores["sbd"] > 0.8
    segments = open_volume(results / "segmentation.zarr").read(Box.of_shape((40, 48, 64)))
    objects = pq.read_table(results / "objects.parquet").to_pydict()
    ids, voxels = np.unique(segments[segments > 0], return_counts=True)
    assert objects["id"] == ids.tolist() == list(range(1, len(ids) + 1))
    assert objects["voxels"] == voxels.tolist()
    page = (results / "report.html").read_text()
    assert "http://" not in re.sub(r"http://www\.w3\.org/[^\"']*", "", page)
    assert f"{scores['ap50']:.2f}" in page
    assert "1 block that lies across seams agrees with the segmentation" in page


def check_what_a_change_runs(configured: dict, would_run: Callable[[], set[str]]) -> None:
    """The stages that a changed section concerns, and those that follow; in the end, what viewers show is asked for."""
    clustered = {"calibrate", "cluster"}
    stitched = {"stitch", "relabel", "recut", "pyramid", "estimate", "evaluate", "report"}
    sections = configured["segmentations"]
    sections["again"] = sections["balls"]
    assert would_run() == {"plan", "embed"} | clustered | stitched
    del sections["again"]
    sections["balls"]["clustering"] = {"kind": "modes", "growth_rounds": 7}
    assert would_run() == clustered | stitched
    del sections["balls"]["clustering"]
    sections["balls"]["stitching"]["min_voxels"] = 60
    assert would_run() == stitched - {"estimate"}
    sections["balls"]["stitching"]["min_voxels"] = 50
    sections["balls"] |= {"meshes": {"min_voxels": 100}, "skeletons": {"min_voxels": 100}}
    assert would_run() == {"mesh", "skeleton", "estimate", "report"}
    sections["balls"]["raw_pyramid"] = True
    assert would_run() == {"mesh", "skeleton", "estimate", "raw_pyramid", "report"}


def check_what_viewers_show(results: Path) -> None:
    """Meshes and skeletons of the large objects, and the raw data."""
    objects = pq.read_table(results / "objects.parquet").to_pydict()
    large = [n for n, voxels in zip(objects["id"], objects["voxels"], strict=True) if voxels >= 100]
    assert ids_in(results / "meshes") == large
    assert all(is_watertight(corners(results / "meshes", number)) for number in large)
    assert {path.name for path in (results / "skeletons").iterdir()} == {"info", *map(str, large)}
    assert "raw_pyramid.zarr" in (results / "report.html").read_text()


def test_kill_in_the_middle_loses_only_the_block_in_flight(snakemake, trained, tmp_path, program_environment):
    configured = copy.deepcopy(trained.tree)
    configured["models"]["balls"] = {"checkpoint": str(trained.layout.model("balls").checkpoint)}
    configured["segmentations"]["balls"]["blocks"] = {"shape_voxels": [10, 12, 12], "halo_voxels": 4}
    configured["execution"] = {"shards": 1}
    config = write_configuration(tmp_path, configured)
    results = tmp_path / "results/segmentations/balls"
    snakemake(config, "--until", "plan")
    job = jobs.canonical(jobs.segmentation_job(parse_settings(configured), "embed", "balls"))
    command = ["spoco-blocks", "embed", job, "--workers", "2"]
    victim = subprocess.Popen(command, cwd=tmp_path, env=program_environment, start_new_session=True)
    ledger = results / "embed/shard-0.ledger"
    deadline = time.monotonic() + 120
    while not (ledger.exists() and ledger.stat().st_size > 800) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    survived = set(Records(results / "embed", _identity(ledger), 0).finished)
    total = Manifest.read(results / "plan.json").result["blocks"]
    assert 0 < len(survived) < total

    snakemake(config)
    finished = Manifest.read(results / "embed/shard-0.json").result
    assert finished["reused"] >= len(survived)
    assert finished["reused"] + finished["computed"] == total
    interrupted = arrays(results)
    for path in results.rglob("*.ledger"):
        path.unlink()
    snakemake(config, "--forcerun", "embed")
    assert Manifest.read(results / "embed/shard-0.json").result["computed"] == total
    assert arrays(results) == interrupted


def test_exact_stitching_calibrates_where_it_clusters(snakemake, trained, tmp_path):
    section = {"clustering": {"kind": "modes"}, "stitching": {"exact": True}}
    configured = copy.deepcopy(trained.tree)
    configured["models"]["balls"] = {"checkpoint": str(trained.layout.model("balls").checkpoint)}
    configured["segmentations"]["balls"] |= section
    configured["execution"] = {"shards": 1}
    config = write_configuration(tmp_path, configured)
    commands = snakemake(config, "--dry-run", "--printshellcmds").stdout
    assert re.search(r"spoco-blocks calibrate .* --executor dask", commands)
    snakemake(config, "--until", "relabel")
    once = trained.segment("exact-once", **section)
    found = tmp_path / "results/segmentations/balls"
    assert digest(found / "seeds.zarr") == digest(once.seeds)
    assert digest(found / "segmentation.zarr") == digest(once.segments)
    assert Manifest.read(found / "cluster/shard-0.json").result["exact"]


def _identity(ledger: Path) -> str:
    with ledger.open("rb") as file:
        return json.loads(file.readline())["identity"]


def test_a_mistake_stops_before_any_work(snakemake, configured, tmp_path):
    configured["segmentations"]["balls"]["clusterin"] = {}
    result = snakemake(write_configuration(tmp_path, configured), check=False)
    assert result.returncode != 0
    assert "did you mean 'clustering'" in result.stderr
    assert not (tmp_path / "results").exists()


def test_what_a_stage_says_reaches_the_user(snakemake, configured, tmp_path):
    configured["volumes"]["balls"]["raw"]["uri"] = str(tmp_path / "row.zarr")
    result = snakemake(write_configuration(tmp_path, configured), check=False)
    assert result.returncode != 0
    assert "VolumeNotFoundError" in result.stderr + result.stdout
    assert "raw.zarr" in result.stderr + result.stdout
    assert not (tmp_path / "results/volumes").exists()
