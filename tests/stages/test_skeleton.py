"""Skeletons: whole across blocks, in the right place, and the same however they were made."""

from __future__ import annotations

import json
import logging
import struct

import numpy as np
import pytest
from meshes import segmented
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.ledger import Ledger
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.errors import SettingsError, VolumeError
from spoco_blocks.kernels.skeleton import skeleton
from spoco_blocks.settings.optional_jobs import SkeletonJob
from spoco_blocks.stages import skeleton as stage
from spoco_blocks.stages.skeleton import run_skeleton

SIZE_NM = np.array([30.0, 20.0, 10.0])
SHAPE = (22, 40, 46)


def thinned(layout, execution=Execution(), **settings):  # noqa: B008
    manifest = run_skeleton(SkeletonJob(segmentation="s", skeletons=settings), layout, execution)
    return manifest.result, layout.segmentation("s").skeletons


def read(folder, number):
    """Positions x, y, z in nm, edges and radii; read as the format's description says."""
    data = (folder / str(number)).read_bytes()
    vertices, edges = struct.unpack("<II", data[:8])
    assert len(data) == 8 + 16 * vertices + 8 * edges
    positions, rest = data[8 : 8 + 12 * vertices], data[8 + 12 * vertices :]
    joined, radii = np.frombuffer(rest[: 8 * edges], "<u4"), np.frombuffer(rest[8 * edges :], "<f4")
    return np.frombuffer(positions, "<f4").reshape(-1, 3), joined.reshape(-1, 2), radii


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def branching(shape=SHAPE, count=4):
    """Long, bent objects that cross many blocks, and one of a single voxel."""
    rng, labels = np.random.default_rng(0), np.zeros(shape, np.uint32)
    grid = np.indices(shape)
    for number in range(1, count + 1):
        ends = rng.uniform(0, 1, (3, 3)) * (np.array(shape) - 1)
        for along in np.linspace(0, 1, 90):
            place = (1 - along) ** 2 * ends[0] + 2 * along * (1 - along) * ends[1] + along**2 * ends[2]
            near = sum((g - p) ** 2 for g, p in zip(grid, place, strict=True)) < 6
            labels[near & (labels == 0)] = number
    empty = np.argwhere(labels == 0)[0]
    labels[tuple(empty)] = count + 1
    return labels


def test_every_object_has_the_skeleton_of_the_whole_and_blocks_do_not_show(tmp_path):
    labels, found = branching(), []
    for name, blocks in (("whole", SHAPE), ("blocks", (6, 10, 8)), ("slabs", (2, 40, 23))):
        result, folder = thinned(segmented(tmp_path / name, labels, blocks), level=0)
        assert (result["objects"], result["vanished"], result["too_large"]) == (5, 0, [])
        found.append(contents(folder))
    assert found[0] == found[1] == found[2]
    info = json.loads(found[0]["info"])
    assert (info["@type"], [attribute["id"] for attribute in info["vertex_attributes"]]) == (
        "neuroglancer_skeletons",
        ["radius"],
    )
    total = 0
    for number in range(1, 6):
        positions, edges, radii = read(folder, number)
        expected = skeleton(labels == number, tuple(SIZE_NM), 1.5, 4 * 30.0)
        order, other = (np.lexsort(places.T) for places in (positions[:, ::-1], expected.places))
        np.testing.assert_allclose(positions[order][:, ::-1], expected.places[other] * SIZE_NM)
        np.testing.assert_allclose(radii[order], expected.radii[other])
        assert (labels[tuple(np.rint(positions[:, ::-1] / SIZE_NM).astype(int).T)] == number).all()
        n = len(positions)
        parts = connected_components(coo_array((np.ones(len(edges)), edges.T), shape=(n, n)), directed=False)[0]
        assert parts == ndimage.label(labels == number, np.ones((3, 3, 3)))[1]
        total += n
    assert result["vertices"] == total > 60


def test_a_coarser_level_lies_where_the_finest_one_does(tmp_path):
    labels = np.zeros((12, 24, 48), np.uint32)
    labels[4:8, 8:16, 4:44] = 1
    layout = segmented(tmp_path, labels, (8, 8, 8), factors=((1, 2, 2), (2, 2, 2)))
    middle = (np.array([6, 12, 24]) - 0.5) * SIZE_NM
    for level, window in enumerate(np.array([[1, 1, 1], [1, 2, 2], [2, 4, 4]])):
        result, folder = thinned(layout, level=level)
        assert result["level"] == level
        positions = read(folder, 1)[0][:, ::-1]
        # Ends may turn into the corners.
        inner = np.abs(positions[:, 2] - middle[2]) < 10 * SIZE_NM[2]
        assert (np.abs(positions - middle)[inner, :2] <= 1.5 * window[:2] * SIZE_NM[:2]).all()
        assert np.ptp(positions[:, 2]) > 20 * SIZE_NM[2]
    assert thinned(layout)[0]["level"] == 1


def test_what_is_too_small_or_too_large_is_left_out_and_named(tmp_path, caplog):
    labels = branching()
    layout = segmented(tmp_path, labels, (6, 10, 8), factors=((2, 2, 2),))
    boxes = [np.prod([part.stop - part.start for part in box]) for box in ndimage.find_objects(labels)]
    most = sorted(boxes)[-2]
    with caplog.at_level(logging.WARNING):
        result, folder = thinned(layout, level=0, max_box_voxels=int(most), min_voxels=2)
    assert result["too_large"] == [1 + int(np.argmax(boxes))]
    assert f"hold up to {max(boxes)} voxels, and max_box_voxels in segmentations.s.skeletons is {most}" in caplog.text
    assert set(contents(folder)) == {"info", *(str(n) for n in range(1, 5) if n not in result["too_large"])}
    result, folder = thinned(layout, level=1)
    assert result["vanished"] == 1
    assert len(read(folder, 5)[0]) == 0


def test_a_run_that_stopped_continues_and_ends_with_the_same_bytes(tmp_path, monkeypatch):
    labels = branching()
    _, folder = thinned(segmented(tmp_path / "whole", labels, (6, 10, 8)), Execution("threads", 2), level=0)
    whole = contents(folder)
    layout, commit, done = segmented(tmp_path / "stopped", labels, (6, 10, 8)), Ledger.commit, []

    def stopping(ledger, *arguments):
        commit(ledger, *arguments)
        done.append(1)
        if len(done) == 50:
            raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "commit", stopping)
    with pytest.raises(KeyboardInterrupt):
        thinned(layout, level=0)
    monkeypatch.undo()
    result, folder = thinned(layout, level=0)
    assert (result["reused"], result["computed"]) == (50, 4 * 4 * 6 - 50)
    assert contents(folder) == whole
    Manifest("pyramid", "other").write(layout.segmentation("s").manifest("pyramid"))
    (folder / "77").write_bytes(b"of another segmentation")
    assert contents(thinned(layout, level=0)[1]) == whole


def test_long_objects_are_read_in_slabs(tmp_path):
    labels, reads = branching(), []
    layout = segmented(tmp_path, labels, (6, 10, 8))
    volume = stage.open_source(stage.Source(uri=str(layout.segmentation("s").segments)))

    class Counting:
        meta = volume.meta

        def read(self, box):
            reads.append(box.size)
            return volume.read(box)

    for number, box in enumerate(ndimage.find_objects(labels), 1):
        where = stage.Box(tuple(s.start for s in box), tuple(s.stop for s in box))
        np.testing.assert_array_equal(stage.read_mask(Counting(), where, number, 4000), labels[box] == number)
    assert max(reads) <= 4000
    assert len(reads) > 5


def test_what_finds_centre_lines_may_be_missing(tmp_path, monkeypatch):
    layout = segmented(tmp_path, np.ones((8, 8, 8), np.uint32), (8, 8, 8))
    monkeypatch.setattr("spoco_blocks.stages.precomputed.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"pip install 'spoco-blocks\[skeletons\]'"):
        thinned(layout)


def test_images_and_levels_that_are_not_there_are_refused(tmp_path):
    flat = segmented(tmp_path / "flat", np.ones((2, 8, 8), np.uint32), (1, 8, 8), planar=True)
    with pytest.raises(VolumeError, match=r"segmentations\.s\.skeletons.*2D images.*Leave `skeletons` out"):
        thinned(flat)
    with pytest.raises(VolumeError, match=r"level is 2.*levels 0 to 1"):
        thinned(segmented(tmp_path / "v", np.ones((8, 8, 8), np.uint32), (8, 8, 8), factors=((2, 2, 2),)), level=2)
