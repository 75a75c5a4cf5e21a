"""What is made beside a segmentation is estimated as well: raw pyramid, holes, and bounds of meshes and skeletons."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import numpy as np
import pytest
from phantoms import store
from pipeline import run_stage, segment
from rich.console import Console

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.errors import ResourceError
from spoco_blocks.grid import Box
from spoco_blocks.settings import jobs, parse_settings
from spoco_blocks.stages.estimate import disk_used, refuse, run_estimate
from spoco_blocks.stages.estimate_stages import StageEstimate
from spoco_blocks.stages.estimate_words import show_estimate
from spoco_blocks.stages.mesh import run_mesh
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.plan.samples import Costs
from spoco_blocks.stages.relabel import GAP_BYTES
from spoco_blocks.stages.report.costs import cost_rows, gather_costs
from spoco_blocks.stages.skeleton import run_skeleton
from spoco_blocks.volumes import create_ome_zarr


@pytest.fixture(scope="module")
def long(trained, tmp_path_factory):
    return trained.with_long_volume(tmp_path_factory.mktemp("long"))[0]


@pytest.fixture
def estimated(trained, long):
    """Plan and estimate a segmentation of the long volume; give the settings and the estimate of each stage."""

    def run(name: str, volume=None, **section):
        tree = copy.deepcopy(long)
        tree["volumes"]["long"] |= volume or {}
        tree["segmentations"] = {name: tree["segmentations"]["balls"] | {"volume": "long"} | section}
        settings = parse_settings(tree)
        run_stage("plan", jobs.segmentation_job(settings, "plan", name), trained.layout)
        manifest = run_estimate(jobs.segmentation_job(settings, "estimate", name), trained.layout, None)
        return settings, {stage["stage"]: StageEstimate(**stage) for stage in manifest.result["stages"]}

    return run


def files_of(folder) -> list[Path]:
    return [path for path in Path(folder).rglob("*") if path.is_file() and not path.name.startswith((".z", "zarr."))]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_copy_of_the_raw_data_is_counted(trained, estimated, version):
    # Chunks are smaller than blocks, or the versions would not differ.
    blocks, name = {"shape_voxels": [40, 48, 128], "halo_voxels": 4}, f"copied-{version[-1]}"
    settings, found = estimated(name, raw_pyramid=True, ome_zarr_version=version, blocks=blocks)
    copied, results = found["raw_pyramid"], segment(settings, name, trained.layout)
    for stage in ("pyramid", "raw_pyramid"):
        run_stage(stage, jobs.segmentation_job(settings, stage, name), trained.layout)
        assert found[stage].blocks == Manifest.read(results.manifest(stage)).result["computed"]
    assert copied.files == len(files_of(results.raw_pyramid)) == (2 + 1 + 1 if version == "0.5" else 3 + 2 + 1)
    assert found["relabel"].files + found["pyramid"].files == len(files_of(results.segments))
    assert 0.8 < copied.disk_bytes / disk_used(results)["raw_pyramid"] < 1.25
    assert not copied.bound
    assert copied.work_s > 0
    ran = {"raw_pyramid": [Manifest.read(results.manifest("raw_pyramid"))]}
    cost = next(c for c in gather_costs(trained.layout, name, ran) if c.name == "raw_pyramid")
    assert cost.blocks == (copied.blocks, copied.blocks)
    assert cost.disk_bytes == (copied.disk_bytes, disk_used(results)["raw_pyramid"])


def test_raw_data_that_have_levels_cost_nothing(estimated, tmp_path):
    raw = np.zeros((40, 48, 144), np.uint8) + np.arange(144, dtype=np.uint8)
    image = create_ome_zarr(
        str(tmp_path / "levels.zarr"), shape=raw.shape, dtype="uint8", chunk_shape=(40, 48, 48), shard_shape=None,
        voxel_size_nm=(500.0,) * 3, levels=2, factors=[(2, 2, 2)], is_label=False, name="raw",
    )  # fmt: skip
    image[0].write(Box.of_shape(raw.shape), raw)
    _, found = estimated("levels", {"raw": {"uri": str(tmp_path / "levels.zarr")}}, raw_pyramid=True)
    assert "raw_pyramid" not in found
    _, found = estimated("none")
    assert not {"raw_pyramid", "mesh", "skeleton"} & found.keys()


def test_raw_data_are_copied_where_nothing_is_segmented(estimated, tmp_path):
    mask = store(tmp_path / "mask.zarr", np.zeros((40, 48, 144), np.uint8))
    _, found = estimated("masked", {"mask": {"uri": mask}}, raw_pyramid=True)
    assert found["embed"].disk_bytes == 0
    assert found["raw_pyramid"].disk_bytes > 0.5 * 40 * 48 * 144


@pytest.mark.parametrize("level", [0, 1, None])
def test_meshes_and_skeletons_are_bounded(trained, estimated, level):
    shapes = {"meshes": {"level": level}, "skeletons": {"level": level}}
    settings, found = estimated(f"shapes-{level}", **shapes)
    results = segment(settings, f"shapes-{level}", trained.layout)
    run_stage("pyramid", jobs.segmentation_job(settings, "pyramid", f"shapes-{level}"), trained.layout)
    for stage, run, folder in (("mesh", run_mesh, results.meshes), ("skeleton", run_skeleton, results.skeletons)):
        ran = run(jobs.segmentation_job(settings, stage, f"shapes-{level}"), trained.layout, Execution()).result
        made, bound = [path for path in files_of(folder) if path.name != "info"], found[stage]
        assert bound.bound
        assert len(made) <= bound.files < 20 * len(made)
        size = sum(path.stat().st_size for path in made)
        # Of a level that is not chosen yet nobody knows how coarse it will be.
        assert 0.8 * size < bound.disk_bytes < (40 if level is None else 10) * size
        assert bound.memory_mb >= ran["peak_memory_projected_mb"]


def test_bounds_refuse_nothing(trained, estimated):
    _, found = estimated("bounded", meshes={})
    results = trained.layout.segmentation("bounded")
    plan = Plan.read(Manifest.read(results.manifest("plan")))
    small = StageEstimate("cluster", 8, 1, 1.0, False, 100, 1, 1)
    huge = StageEstimate("mesh", 8, 1, 1.0, False, 10**6, 10**18, 16, bound=True)
    refuse([small, huge], plan, results, memory_mb=1000)
    with pytest.raises(ResourceError, match="mesh"):
        refuse([small, StageEstimate(**huge.__dict__ | {"bound": False})], plan, results, memory_mb=1000)
    assert found["mesh"].bound


def test_filling_holes_takes_memory(estimated):
    blocks = {"shape_voxels": [40, 48, 128], "halo_voxels": 4}
    without, filled = (
        estimated(name, blocks=blocks, stitching={"fill_holes_voxels": size})[1]
        for name, size in (("as-found", 0), ("filled", 50))
    )
    extra = (filled["relabel"].memory_mb - without["relabel"].memory_mb) * 2**20
    assert extra == pytest.approx(GAP_BYTES * 40 * 48 * 128, abs=2**20)


def test_bounds_are_said_to_be_bounds(trained, estimated):
    estimated("said", meshes={})
    results = trained.layout.segmentation("said")
    plan = Plan.read(Manifest.read(results.manifest("plan")))
    stages = [
        StageEstimate("cluster", 8, 2, 8.0, False, 100, 1000, 8),
        StageEstimate("mesh", 8, 1, 80.0, False, 100, 7000, 9, bound=True),
    ]
    text = io.StringIO()
    costs = Costs(3, 0, *[0.0] * 8)
    show_estimate("said", plan, stages, costs, 1, Console(file=text, width=200))
    said = text.getvalue()
    assert "≤ 7 kB" in said
    assert "≤ 1 kB" not in said
    assert "2 jobs, 1 kB in 8 files" in said
    assert "≤: at most; mesh depend" in said
    rows = {row["name"]: row["cells"] for row in cost_rows(gather_costs(trained.layout, "said", {}))}
    cells = rows["Mesh the objects"]
    assert [cell.startswith("≤ ") for cell in cells[2:6:2]] == [True, True]
    assert not any(cell.startswith("≤") for cell in rows["Cluster blocks"])
