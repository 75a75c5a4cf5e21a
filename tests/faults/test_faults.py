"""What can go wrong goes wrong here, and in the end the arrays are those of a run without faults."""

from __future__ import annotations

import copy
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from phantoms import balls, store
from pipeline import punch_holes, run_stage
from segmenting import Segmenting, digest, kill, workers_of

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.ledger import Records
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.grid import BlockGrid, Box
from spoco_blocks.kernels.downsample import downsample_mean
from spoco_blocks.stages.labels import run_labels
from spoco_blocks.volumes import open_volume

BLOCKS = 96


@pytest.fixture
def segmenting(trained, program_environment):
    def named(name: str, **changes) -> Segmenting:
        tree = {**trained.tree, **changes}
        return Segmenting(trained.layout.root, tree, name, program_environment)

    return named


@pytest.fixture(scope="module")
def undisturbed(trained, program_environment):
    """Digests of a run without faults."""
    run = Segmenting(trained.layout.root, trained.tree, "undisturbed", program_environment)
    run.run_from("plan")
    assert run.done("embed") == BLOCKS
    return run.digests()


def _identity(run: Segmenting, stage: str) -> str:
    ledger = run.results.ledger(stage) / "shard-0.ledger"
    return re.search(rb'"identity": ?"([^"]+)"', ledger.read_bytes()).group(1).decode()


@pytest.mark.parametrize("stage", ["embed", "cluster", "relabel"])
def test_a_killed_worker_costs_its_blocks_in_flight_and_nothing_else(segmenting, undisturbed, stage):
    run = segmenting(f"worker-{stage}")
    run.run_before(stage)
    process = run.start(stage)
    workers = workers_of(process)
    assert workers
    os.kill(workers[0], signal.SIGKILL)
    assert process.wait(timeout=300) == 0
    run.run_from(stage)
    manifest = Manifest.read(run.results.manifest(stage, 0)).result
    assert (manifest["computed"], manifest["reused"]) == (0, BLOCKS)
    assert run.digests() == undisturbed


@pytest.mark.parametrize("stage", ["embed", "cluster", "relabel"])
def test_a_coordinator_killed_twice_in_a_row_loses_only_blocks_in_flight(segmenting, undisturbed, stage):
    run = segmenting(f"coordinator-{stage}")
    run.run_before(stage)
    kept = 0
    for _ in range(2):
        process = run.start(stage)
        kill(process)
        assert run.done(stage) > kept
        kept = run.done(stage)
    assert kept < BLOCKS
    run.run_from(stage)
    manifest = Manifest.read(run.results.manifest(stage, 0)).result
    assert manifest["reused"] >= kept
    assert run.digests() == undisturbed


@pytest.mark.parametrize("stage", ["cluster", "relabel"])
def test_holes_are_filled_alike_after_a_kill(segmenting, trained, stage):
    tree = copy.deepcopy(trained.tree)
    tree["segmentations"]["balls"]["stitching"]["fill_holes_voxels"] = 50
    digests = []
    for name in ("killed", "not"):
        run = segmenting(f"holes-{stage}-{name}", segmentations=tree["segmentations"])
        run.run_before("calibrate")
        punch_holes(run.results)
        run.run_before(stage)
        if name == "killed":
            kill(run.start(stage))
            assert 0 < run.done(stage) < BLOCKS
        run.run_from(stage)
        assert Manifest.read(run.results.manifest("stitch")).result["holes"] > 5
        digests.append(run.digests())
    assert digests[0] == digests[1]


def test_exact_stitching_goes_on_after_kills(segmenting, trained):
    """Of both passes of `calibrate` and of `cluster`, in worker processes; and at once, in this process."""
    method = {"kind": "modes", "growth_rounds": 3, "refinement_sweeps": 1, "min_core_voxels": 2, "blend_voxels": 2}
    section = trained.tree["segmentations"]["balls"] | {"clustering": method, "stitching": {"exact": True}}
    digests = []
    for name in ("killed", "not"):
        run = segmenting(f"exact-{name}", segmentations={"balls": section})
        run.run_before("calibrate")
        if name == "killed":
            for step in ("seeds", "growth"):
                kill(run.start("calibrate", step=step))
                assert 0 < run.done(f"calibrate/{step}") < BLOCKS
            assert run.run("calibrate").returncode == 0
            kill(run.start("cluster"))
            assert 0 < run.done("cluster") < BLOCKS
            assert run.run("cluster").returncode == 0
        run.run_from("cluster" if name == "killed" else "calibrate")
        digests.append(run.digests() | {"seeds": digest(run.results.seeds)})
    assert digests[0] == digests[1]


def test_a_killed_copy_of_the_raw_data_goes_on(segmenting, trained, tmp_path):
    """Large enough for a coarser level; nothing that was copied is copied again."""
    raw, _ = balls((40, 48, 192))
    volumes = {"long": {"raw": {"uri": store(tmp_path / "raw.zarr", raw)}}}
    section = trained.tree["segmentations"]["balls"] | {"volume": "long", "raw_pyramid": True}
    run = segmenting("copied", volumes=trained.tree["volumes"] | volumes, segmentations={"s": section})
    run_labels(run.job("plan").volume, trained.layout.volume("long"), Execution())
    run.run_before("embed")
    kept = 0
    for _ in range(2):
        kill(run.start("raw_pyramid"))
        assert run.done("raw_pyramid") > kept
        kept = run.done("raw_pyramid")
    finished = Records(run.results.ledger("raw_pyramid") / "level-0", _identity(run, "raw_pyramid/level-0"), 0).finished
    places = [BlockGrid(raw.shape, (10, 12, 12)).position(block) for block in finished]
    files = [Path(run.results.raw_pyramid, "0/c", *map(str, place)) for place in places]
    written = [path.stat().st_mtime_ns for path in files]
    run_stage("raw_pyramid", run.job("raw_pyramid"), trained.layout)
    manifest = Manifest.read(run.results.manifest("raw_pyramid")).result
    assert kept < run.done("raw_pyramid") == manifest["computed"]
    assert [path.stat().st_mtime_ns for path in files] == written != []
    coarse = raw
    for number in range(manifest["levels"]):
        volume = open_volume(run.results.raw_pyramid, level=number)
        np.testing.assert_array_equal(volume.read(Box.of_shape(volume.meta.shape)), coarse)
        coarse = downsample_mean(coarse, (2, 2, 2))
    assert manifest["levels"] == 3


def test_a_torn_record_is_computed_again(segmenting, undisturbed):
    run = segmenting("torn")
    run.run_before("cluster")
    ledger = run.results.ledger("embed") / "shard-0.ledger"
    os.truncate(ledger, ledger.stat().st_size - 7)
    assert run.done("embed") < BLOCKS
    run.run_from("embed")
    assert Manifest.read(run.results.manifest("embed", 0)).result["computed"] >= 1
    assert run.digests() == undisturbed


def test_a_second_coordinator_is_refused_and_harms_nothing(segmenting, undisturbed):
    run = segmenting("second")
    run.run_before("embed")
    first = run.start("embed")
    os.killpg(first.pid, signal.SIGSTOP)
    try:
        second = run.run("embed")
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    assert second.returncode == 1
    assert "another process is doing this work" in second.stderr
    assert first.wait(timeout=300) == 0
    run.run_from("calibrate")
    assert run.digests() == undisturbed


def test_a_corrupt_chunk_fails_its_blocks_and_no_others(segmenting, undisturbed, trained, tmp_path):
    raw = open_volume(trained.tree["volumes"]["balls"]["raw"]["uri"])
    uri = store(tmp_path / "raw.zarr", raw.read(Box.of_shape(raw.meta.shape)))
    volumes = {"balls": trained.tree["volumes"]["balls"] | {"raw": {"uri": uri}}}
    run = segmenting("corrupt", volumes=volumes)
    run.run_before("embed")
    chunk = next(path for path in sorted(Path(uri).rglob("*")) if path.is_file() and path.name != "zarr.json")
    whole = chunk.read_bytes()
    chunk.write_bytes(b"\x07" * len(whole))
    result = run.run("embed")
    assert result.returncode == 1
    count, total = map(int, re.search(r"(\d+) of (\d+) blocks failed", result.stderr).groups())
    assert 0 < count < total == BLOCKS
    assert re.search(r"block 0 \[0:10, 0:12, 0:12\].*: ", result.stderr)
    assert "spoco-blocks embed" in result.stderr
    assert run.done("embed") == total - count
    chunk.write_bytes(whole)
    run.run_from("embed")
    assert Manifest.read(run.results.manifest("embed", 0)).result["computed"] == count
    assert run.digests() == undisturbed


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, small enough to fill."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_fails_blocks_keeps_what_is_done_and_goes_on_when_there_is_room(
    segmenting, undisturbed, trained, small_disk, program_environment
):
    for part in ("volumes", "models"):
        shutil.copytree(trained.layout.root / part, small_disk / part)
    run = Segmenting(small_disk, trained.tree, "full", program_environment)
    run.run_before("embed")
    room = shutil.disk_usage(small_disk).free
    filler = small_disk / "filler"
    filler.write_bytes(bytes(room - 300_000))
    result = run.run("embed")
    assert result.returncode == 1
    assert "No space left on device" in result.stderr
    assert re.search(r"^(BlockError|LedgerError): .*kept", result.stderr, re.MULTILINE)
    kept = run.done("embed")
    assert kept < BLOCKS
    filler.unlink()
    run.run_from("embed")
    manifest = Manifest.read(run.results.manifest("embed", 0)).result
    assert manifest["reused"] == kept
    assert run.digests() == undisturbed


def test_records_of_blocks_are_on_disk_only_after_their_voxels(segmenting, undisturbed):
    """Whatever was recorded when the coordinator was killed can be read in the store, and is right."""
    run = segmenting("order")
    run.run_before("embed")
    process = run.start("embed")
    time.sleep(0.2)
    kill(process)
    reference = segmenting("undisturbed").results
    finished = Records(run.results.ledger("embed"), _identity(run, "embed"), 0).finished
    assert finished
    store_now, store_then = open_volume(run.results.embeddings), open_volume(reference.embeddings)
    for block in finished:
        box = BlockGrid((40, 48, 64), (10, 12, 12)).block(block).inner
        np.testing.assert_array_equal(store_now.read(box), store_then.read(box))
