"""Meshes: closed across blocks, in the right place, complete, and the same however they were made."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from meshes import canonical, corners, ids_in, is_watertight, segmented, volume_nm3

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.ledger_folders import ledger_folders
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.errors import VolumeError
from spoco_blocks.kernels.downsample import downsample_mode
from spoco_blocks.settings.optional_jobs import MeshJob
from spoco_blocks.stages.mesh import run_mesh

SIZE_NM = np.array([30.0, 20.0, 10.0])
SHAPE = (24, 32, 60)


def meshed(layout, execution=Execution(), **settings):  # noqa: B008
    manifest = run_mesh(MeshJob(segmentation="s", meshes=settings), layout, execution)
    return manifest.result, layout.segmentation("s").meshes


def ball(shape=SHAPE, radius_nm=250.0):
    """A ball about the middle of a volume of flat voxels."""
    grid = np.stack(np.meshgrid(*[np.arange(s) for s in shape], indexing="ij"), -1)
    middle = (np.array(shape) - 1) / 2 + 0.2
    return (np.linalg.norm((grid - middle) * SIZE_NM, axis=-1) < radius_nm).astype(np.uint32)


def speckled(shape=(11, 14, 13), count=5):
    """Objects that touch everywhere, also the volume's border, and have faces, edges and corners in common."""
    rng = np.random.default_rng(3)
    return rng.integers(0, count + 1, shape).repeat(2, axis=1)[:, : shape[1]].astype(np.uint32)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_ball_in_eight_blocks_is_closed_and_has_its_volume_and_place(tmp_path):
    labels = ball()
    result, folder = meshed(segmented(tmp_path, labels, (12, 16, 30)), level=0)
    assert (result["objects"], result["fragments"], result["without_surface"]) == (1, 8, 0)
    assert json.loads((folder / "info").read_text()) == {"@type": "neuroglancer_legacy_mesh"}
    triangles = corners(folder, 1)
    assert len(triangles) == result["triangles"]
    assert is_watertight(triangles)
    assert volume_nm3(triangles) == pytest.approx(labels.sum() * SIZE_NM.prod(), rel=0.02)
    # Of the first voxel it is the centre that is at 0: every corner lies midway between a voxel inside and one outside.
    index = triangles.reshape(-1, 3)[:, ::-1] / SIZE_NM
    below, above = np.floor(index + 1e-3).astype(int), np.ceil(index - 1e-3).astype(int)
    np.testing.assert_allclose((below + above) / 2, index, atol=1e-3)
    assert (labels[tuple(below.T)] != labels[tuple(above.T)]).all()


def test_block_shape_does_not_show_and_the_border_is_closed(tmp_path):
    labels, found = speckled(), []
    for name, blocks in (("whole", (11, 14, 13)), ("blocks", (4, 7, 5)), ("slabs", (1, 14, 6))):
        _, folder = meshed(segmented(tmp_path / name, labels, blocks), level=0)
        assert ids_in(folder) == [1, 2, 3, 4, 5]
        triangles = [corners(folder, number) for number in ids_in(folder)]
        assert all(is_watertight(of_one) for of_one in triangles)
        found.append([canonical(of_one) for of_one in triangles])
    assert found[0] == found[1] == found[2]


def test_a_coarser_level_lies_where_the_finest_one_does(tmp_path):
    labels = np.zeros((12, 24, 32), np.uint32)
    labels[4:8, 4:16, 8:20] = 1
    layout = segmented(tmp_path, labels, (8, 8, 8), factors=((1, 2, 2), (2, 2, 2)))
    for level in range(3):
        result, folder = meshed(layout, level=level)
        assert result["level"] == level
        triangles = corners(folder, 1)
        assert is_watertight(triangles)
        low, high = triangles.min(axis=(0, 1))[::-1], triangles.max(axis=(0, 1))[::-1]
        np.testing.assert_allclose(low, (np.array([4, 4, 8]) - 0.5) * SIZE_NM)
        np.testing.assert_allclose(high, (np.array([8, 16, 20]) - 0.5) * SIZE_NM)


def test_the_level_follows_from_how_thick_objects_are(tmp_path):
    # The ball is 500 nm thick, voxels of the levels are 18, 29, 58 and 115 nm across.
    layout = segmented(tmp_path, ball(), (24, 32, 60), factors=((1, 2, 2), (2, 2, 2), (2, 2, 2)))
    assert meshed(layout)[0]["level"] == 2


def test_exactly_the_objects_that_are_large_enough_have_manifests(tmp_path):
    labels = np.zeros((8, 12, 40), np.uint32)
    sizes = [1, 40, 5, 100, 39]
    for number, size in enumerate(sizes, 1):
        part = np.zeros(100, np.uint32)
        part[:size] = number
        labels[2:7, 2:12, 8 * number - 6 : 8 * number - 4] = part.reshape(5, 10, 2)
    layout = segmented(tmp_path, labels, (4, 12, 8), factors=((2, 2, 2),))
    table = pq.read_table(layout.segmentation("s").objects).to_pydict()
    for least in (0, 5, 40):
        result, folder = meshed(layout, level=0, min_voxels=least)
        expected = [n for n, voxels in zip(table["id"], table["voxels"], strict=True) if voxels >= least]
        assert ids_in(folder) == expected
        assert result["objects"] == len(expected)
        named = {name for n in expected for name in json.loads((folder / f"{n}:0").read_text())["fragments"]}
        assert {name for name in contents(folder) if name.count(":") == 2} == named
        assert all(is_watertight(corners(folder, number)) for number in expected)
    # What is too thin for a coarse level has a manifest and no fragments.
    result, folder = meshed(layout, level=1)
    assert ids_in(folder) == table["id"]
    assert result["without_surface"] == len(sizes) - np.count_nonzero(np.unique(downsample_mode(labels, (2, 2, 2))))
    assert json.loads((folder / "1:0").read_text()) == {"fragments": []}


KILLED = """
import os, signal, sys
from pathlib import Path
from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout
from spoco_blocks.settings.optional_jobs import MeshJob
from spoco_blocks.stages import mesh

write, calls = mesh.write_fragment, []

def torn(path, *arrays):
    write(path, *arrays)
    calls.append(path)
    if len(calls) == 40:
        path.write_bytes(path.read_bytes()[:50])
        os.kill(os.getpid(), signal.SIGKILL)

mesh.write_fragment = torn
mesh.run_mesh(MeshJob(segmentation="s", meshes={"level": 0}), Layout(Path(sys.argv[1])), Execution())
"""


def test_a_killed_run_continues_and_ends_with_the_same_bytes(tmp_path):
    layout = segmented(tmp_path / "killed", speckled(), (4, 5, 4))
    killed = subprocess.run([sys.executable, "-c", KILLED, str(layout.root)], check=False)
    assert killed.returncode == -9
    result, folder = meshed(layout, level=0)
    assert result["reused"] > 0 < result["computed"]
    _, whole = meshed(segmented(tmp_path / "whole", speckled(), (4, 5, 4)), level=0)
    before = contents(folder)
    assert before == contents(whole)
    assert meshed(layout, level=0)[0]["computed"] == 0
    assert contents(folder) == before


def test_executor_changes_nothing_and_what_is_gone_is_made_again(tmp_path):
    layout = segmented(tmp_path, speckled(), (6, 7, 8))
    _, folder = meshed(layout, level=0)
    before = contents(folder)
    folder.rename(tmp_path / "moved")
    result, folder = meshed(layout, Execution("threads", 2), level=0)
    assert result["computed"] == 8
    assert contents(folder) == before


def test_status_looks_for_ledgers_but_not_among_meshes(tmp_path):
    layout = segmented(tmp_path, speckled(), (6, 7, 8))
    _, folder = meshed(layout, level=0)
    (folder / "shard-0.ledger").touch()
    assert [stage for _, stage, _ in ledger_folders(layout.root)] == ["mesh"]


def test_what_another_segmentation_left_is_removed(tmp_path):
    layout = segmented(tmp_path, speckled(), (6, 7, 8))
    _, folder = meshed(layout, level=0)
    (folder / "9:0").write_text("{}")
    Manifest("pyramid", "other").write(layout.segmentation("s").manifest("pyramid"))
    meshed(layout, level=0)
    assert ids_in(folder) == [1, 2, 3, 4, 5]


def test_images_and_levels_that_are_not_there_are_refused(tmp_path):
    flat = segmented(tmp_path / "flat", np.ones((2, 8, 8), np.uint32), (1, 8, 8), planar=True)
    with pytest.raises(VolumeError, match=r"segmentations\.s\.meshes.*2D images.*Leave `meshes` out"):
        meshed(flat)
    with pytest.raises(VolumeError, match=r"level is 2.*levels 0 to 1"):
        meshed(segmented(tmp_path / "v", np.ones((8, 8, 8), np.uint32), (8, 8, 8), factors=((2, 2, 2),)), level=2)
