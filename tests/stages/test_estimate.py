"""What a segmentation will cost: counted where it can be, else from samples; refused where it cannot be held."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from phantoms import balls, store, write_configuration
from pipeline import Trained

from spoco_blocks.clustering.exact import exact_halo
from spoco_blocks.engine.attempts import Usage
from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.errors import ResourceError
from spoco_blocks.grid import BlockGrid
from spoco_blocks.settings import jobs, parse_settings
from spoco_blocks.stages.estimate import disk_used, refuse, run_estimate, size_text
from spoco_blocks.stages.estimate_stages import StageEstimate, outer_voxels
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.plan.run import run_plan
from spoco_blocks.stages.recut import run_recut
from spoco_blocks.stages.report.costs import gather_costs
from spoco_blocks.stages.report.wording import TIMES


def estimated(trained: Trained, name: str, memory_mb=None, **section) -> dict[str, StageEstimate]:
    """Plan and estimate a segmentation that was not run."""
    tree = copy.deepcopy(trained.tree)
    tree["segmentations"] = {name: tree["segmentations"]["balls"] | section}
    settings = parse_settings(tree)
    run_plan(jobs.segmentation_job(settings, "plan", name), trained.layout)
    manifest = run_estimate(jobs.segmentation_job(settings, "estimate", name), trained.layout, memory_mb)
    return {stage["stage"]: StageEstimate(**stage) for stage in manifest.result["stages"]}


def test_counts_are_those_of_the_run(trained):
    kind = {"clustering": {"kind": "modes"}}
    found = estimated(trained, "counted", **kind)
    assert list(found) == ["embed", "calibrate", "cluster", "relabel", "pyramid", "recut"]
    results = trained.segment("counted", **kind)
    for stage in ("embed", "cluster", "relabel"):
        assert found[stage].blocks == Manifest.read(results.manifest(stage, 0)).result["computed"]
    stores = map(Path, (results.embeddings, results.foreground, results.affinities))
    files = [path for store in stores for path in store.rglob("*") if path.is_file() and path.name != "zarr.json"]
    assert found["embed"].files == len(files)


def test_the_report_compares_what_was_planned_with_what_was_used(trained):
    estimated(trained, "compared", clustering={"kind": "modes"})
    results = trained.segment("compared", clustering={"kind": "modes"})
    ran = {stage: [Manifest.read(results.manifest(stage, 0))] for stage in ("embed", "cluster", "relabel")}
    ran |= {stage: [Manifest.read(results.manifest(stage))] for stage in ("calibrate", "pyramid")}
    log = trained.layout.attempts("embed-0", "compared")
    log.parent.mkdir(exist_ok=True)
    log.write_text(f"{Usage(10.0, 14.0, 2, 500, 1000)}\n{Usage(30.0, 50.0, 2, 700, 2000)}\n")
    costs = {cost.name: cost for cost in gather_costs(trained.layout, "compared", ran)}
    assert list(costs) == ["embed", "calibrate", "cluster", "relabel", "pyramid", "recut"]
    assert costs.pop("recut").blocks == (1, None)
    for cost in costs.values():
        assert cost.blocks[0] == cost.blocks[1]
    # Tenfold either way: the machine may be busy with other things now and then.
    for stage in ("embed", "cluster"):
        planned, used = costs[stage].work_s
        assert 0.1 * used < planned < 10 * used
    assert costs["embed"].processors == (2.0, 1.6)
    assert costs["embed"].memory_mb == (2000, 700)
    assert costs["cluster"].processors == costs["cluster"].memory_mb == (None, None)


def test_disk_is_about_what_is_used(trained):
    found = estimated(trained, "disk")
    used = disk_used(trained.segment("disk"))
    for stage in ("embed", "cluster"):
        assert 0.5 * used[stage] < found[stage].disk_bytes < 2 * used[stage]
    assert 0.5 * used["relabel"] < found["relabel"].disk_bytes + found["pyramid"].disk_bytes < 2 * used["relabel"]


def test_passes_of_exact_stitching_are_estimated(trained):
    section = {"clustering": {"kind": "modes"}}
    once = estimated(trained, "once", **section)
    exact = estimated(trained, "passes", **section, stitching={"exact": True})
    assert exact["cluster"].memory_mb > once["cluster"].memory_mb
    assert exact["calibrate"].memory_mb > once["calibrate"].memory_mb
    assert once["calibrate"].disk_bytes == 0
    results = trained.segment("passes", **section, stitching={"exact": True})
    seeds = [path for path in Path(results.seeds).rglob("*") if path.is_file() and path.name != "zarr.json"]
    assert exact["calibrate"].files == len(seeds)
    # Seeds are a part of what fragments are, and as many voxels.
    assert 0.2 * exact["calibrate"].disk_bytes < disk_used(results)["calibrate"] < 2 * exact["calibrate"].disk_bytes
    ran = Manifest.read(results.manifest("cluster", 0)).result["work_s"]
    assert exact["calibrate"].work_s > 0.1 * ran


def seen(starts: list[int], stops: list[int], halo: int, extent: int) -> int:
    """Voxels along one axis of blocks with their margins."""
    return sum(min(extent, stop + halo) - max(0, start - halo) for start, stop in zip(starts, stops, strict=True))


@pytest.mark.parametrize("exact", [False, True])
def test_looking_across_the_seams_is_estimated(trained, exact):
    section = {
        "clustering": {"kind": "modes"}, "stitching": {"exact": exact}, "blocks": {"shape_voxels": [20, 24, 20]},
    }  # fmt: skip
    name = f"across-{exact}"
    stages = estimated(trained, name, **section)
    found, results = stages["recut"], trained.segment(name, **section)
    tree = trained.tree | {"segmentations": {name: trained.tree["segmentations"]["balls"] | section}}
    job = jobs.segmentation_job(parse_settings(tree), "recut", name)
    ran = run_recut(job, trained.layout, Execution()).result
    assert found.blocks == ran["computed"] == 3
    assert found.memory_mb >= ran["peak_memory_projected_mb"]
    assert (found.gpu, found.bound, found.disk_bytes) == (False, False, 0)
    # Three blocks, each half a block on: of what all blocks see, what they do.
    plan = Plan.read(Manifest.read(results.manifest("plan")))
    halo = exact_halo(plan.method(None)) if exact else plan.cluster_halo[2]
    every = seen([0, 20], [20, 40], halo, 40) * seen([0, 24], [24, 48], halo, 48)
    every *= seen([0, 20, 40, 60], [20, 40, 60, 64], halo, 64)
    across = seen([10], [30], halo, 40) * seen([12], [36], halo, 48) * seen([10, 30, 50], [30, 50, 64], halo, 64)
    # A margin may be a voxel wider.
    assert found.work_s / stages["cluster"].work_s == pytest.approx(across / every, rel=0.1)


def test_nothing_is_looked_at_where_nothing_is_cut_or_stored(trained):
    assert "recut" not in estimated(trained, "one-block", blocks={"shape_voxels": [40, 48, 64]})
    assert "recut" not in estimated(trained, "not-stored", embeddings="stream")


def test_work_is_in_proportion(trained):
    """Streaming moves the work of the network to `cluster`, and halos make it more."""
    kept = estimated(trained, "kept", clustering={"kind": "mutex"})
    streamed = estimated(trained, "streamed", clustering={"kind": "mutex"}, embeddings="stream")
    assert "embed" not in streamed
    assert kept["embed"].gpu
    assert not kept["cluster"].gpu
    assert streamed["cluster"].gpu
    assert streamed["cluster"].disk_bytes == pytest.approx(kept["cluster"].disk_bytes, rel=0.1)


def test_what_is_empty_costs_nothing(trained, tmp_path):
    raw, _ = balls()
    mask = np.zeros(raw.shape, np.uint8)
    tree = copy.deepcopy(trained.tree)
    tree["volumes"]["balls"]["mask"] = {"uri": store(tmp_path / "mask.zarr", mask)}
    found = estimated(Trained(trained.layout, tree), "empty")
    assert sum(stage.work_s for stage in found.values()) == 0
    assert sum(stage.disk_bytes for stage in found.values()) == 0


@pytest.mark.parametrize(
    "grid", [BlockGrid((40, 48, 64), (20, 24, 32), (8, 8, 8)), BlockGrid((7, 5, 9), (3, 5, 2), (2, 1, 4))]
)
def test_voxels_of_outer_boxes_are_counted_without_going_through_them(grid):
    assert outer_voxels(grid) == sum(grid.block(index).outer.size for index in range(len(grid)))


def test_too_little_memory_is_refused(trained):
    with pytest.raises(ResourceError, match=r"needs about \d+ MiB in stage \w+, 50 MiB are given.*mem_mb"):
        estimated(trained, "narrow", memory_mb=50)


def test_too_small_a_disk_is_refused(trained):
    estimated(trained, "large")
    results = trained.layout.segmentation("large")
    plan = Plan.read(Manifest.read(results.manifest("plan")))
    huge = StageEstimate("embed", 8, 1, 1.0, True, 100, 10**18, 16)
    with pytest.raises(
        ResourceError, match=r"about 1e\+03 PB \(embed 1e\+03 PB\), .* are free at .*embeddings: stream"
    ):
        refuse([huge], plan, results, None)


def test_a_configuration_is_estimated_before_anything_is_submitted(trained, tmp_path, program_environment):
    tree = copy.deepcopy(trained.tree)
    tree["segmentations"]["balls"]["blocks"]["shape_voxels"] = [20, 24, 20]
    path = write_configuration(tmp_path, tree)
    where = ["--results", str(trained.layout.root)]
    before = {p: p.stat().st_mtime_ns for p in Path(trained.layout.root).rglob("*")}
    command = ["spoco-blocks", "plan", str(path), *where, "--workers", "3"]
    done = subprocess.run(
        command, env=program_environment | {"COLUMNS": "140"}, capture_output=True, text=True, check=True
    )
    for text in (
        "balls",
        "memory per block",
        f"{TIMES.join(map(str, (40, 48, 64)))} voxels in blocks of {TIMES.join(map(str, (20, 24, 20)))}",
        "GPU",
        "Wall time",
        "files.",
    ):
        assert text in done.stdout
    assert {p: p.stat().st_mtime_ns for p in Path(trained.layout.root).rglob("*")} == before


def test_a_configuration_whose_model_is_not_trained_says_so(tmp_path, trained, program_environment):
    path = write_configuration(tmp_path, trained.tree)
    command = ["spoco-blocks", "plan", str(path), "--results", str(tmp_path / "none")]
    done = subprocess.run(command, env=program_environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "run the stage that writes it first (snakemake with --until labels)" in done.stderr
    assert os.listdir(tmp_path) == ["config.yaml"]


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1234, "1.23 kB"), (3.2e13, "32 TB"), (5e15, "5 PB")]
)
def test_sizes_read_well(size, text):
    assert size_text(size) == text


def test_estimates_are_json(trained):
    found = estimated(trained, "json")
    assert json.loads(json.dumps({name: stage.__dict__ for name, stage in found.items()}))
