"""What the tables say of objects and seams, against counting in the finished segmentation."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from pipeline import punch_holes
from scipy import ndimage

from spoco_blocks.engine.ledger import Records
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.grid import Box
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.stitch import mapped, objects
from spoco_blocks.stages.stitch.objects import Geometry, principal_axes, surface, write_objects
from spoco_blocks.stages.stitch.seams import Planes, count_cuts, load_planes, report_seams
from spoco_blocks.volumes import open_volume


def whole(path):
    volume = open_volume(str(path))
    return volume.read(Box.of_shape(volume.meta.shape))


@pytest.fixture(scope="module", params=[0, 30], ids=["holes stay", "holes are filled"])
def measured(trained, request):
    results = trained.segment(
        f"measured-{request.param}", edit=punch_holes if request.param else None, foreground_threshold=0.2,
        blocks={"shape_voxels": [12, 20, 20], "halo_voxels": 2},
        clustering={"kind": "modes", "bandwidth": 1.0, "merge_radius": 1.0},
        stitching={"merge_distance": 1.0, "small_voxels": 0, "min_voxels": 5, "fill_holes_voxels": request.param},
    )  # fmt: skip
    assert (Manifest.read(results.manifest("stitch")).result["hole_voxels"] > 0) == (request.param > 0)
    return results


@pytest.fixture(scope="module")
def volumes(measured):
    plan = Plan.read(Manifest.read(measured.manifest("plan")))
    return plan, whole(measured.segments), whole(measured.fragments), whole(measured.foreground)


def planes_of(plan, segments):
    """Every face between blocks and every middle of a block: axis, block, whether a seam, and both sides."""
    for block in plan.cluster_grid:
        inner = segments[block.inner.slices]
        for axis in range(3):
            middle = inner.shape[axis] // 2
            yield axis, block, False, np.take(inner, middle - 1, axis), np.take(inner, middle, axis)
            if block.inner.stop[axis] < plan.shape[axis]:
                where = list(block.inner.slices)
                where[axis] = block.inner.stop[axis]
                yield axis, block, True, np.take(inner, -1, axis), segments[tuple(where)]


def test_objects_are_as_counted_voxel_by_voxel(measured, volumes):
    plan, segments, fragments, foreground = volumes
    raw = whole(plan.predicted.raw.uri)
    found = pq.read_table(measured.objects).to_pydict()
    faces = np.zeros((segments.max() + 1, 3), int)
    for axis in range(3):
        a, b = (np.moveaxis(segments, axis, 0)[part].astype(int) for part in (slice(0, -1), slice(1, None)))
        for side in (a, b):
            faces[:, axis] += np.bincount(side[a != b], minlength=len(faces))
    block_of = np.zeros(segments.shape, int)
    for block in plan.cluster_grid:
        block_of[block.inner.slices] = block.index
    split = 0
    for row, number in enumerate(found["id"]):
        inside = segments == number
        places = np.argwhere(inside)
        covariance = (np.cov(places.T, bias=True) + np.eye(3) / 12) * 500**2
        lengths = 2 * np.sqrt(5 * np.linalg.eigvalsh(covariance))[::-1]
        np.testing.assert_allclose([found[f"axis_{a}_nm"][row] for a in (1, 2, 3)], lengths, rtol=1e-9)
        direction = np.array([found[f"direction_{a}"][row] for a in "zyx"])
        assert direction @ covariance @ direction == pytest.approx(np.linalg.eigvalsh(covariance)[-1])
        assert found["volume_um3"][row] == pytest.approx(len(places) * 0.5**3)
        assert found["surface_um2"][row] == pytest.approx(faces[number].sum() * 0.25 * 2 / 3)
        assert found["certainty"][row] == pytest.approx(foreground[inside].mean() / 255, abs=1e-6)
        assert found["mean_intensity"][row] == pytest.approx(raw[inside].mean(), rel=1e-6)
        assert found["blocks"][row] == len(np.unique(block_of[inside]))
        pieces = inside & (fragments > 0)
        assert found["fragments"][row] == len(np.unique(np.c_[block_of[pieces], fragments[pieces]], axis=0))
        assert (found["spread"][row] > 0) == (found["fragments"][row] > 1)
        split += found["fragments"][row] > 1
    assert split > 5


def test_parts_of_the_tables_change_nothing(measured, volumes, tmp_path, monkeypatch):
    plan, _, _, _ = volumes
    identity = Manifest.read(measured.manifest("cluster", 0)).result["records"]
    records = Records(measured.ledger("cluster"), identity, len(plan.cluster_grid))
    lookup, offsets = np.load(measured.lookup), np.load(measured.offsets)
    geometry, grid = Geometry(plan.cluster_grid, plan.voxel_size_nm, plan.planar), plan.cluster_grid
    planes = load_planes(records, grid, offsets, planar=False)
    seams = count_cuts(planes, lookup)
    for part in (1, 7, 10**6):
        monkeypatch.setattr(mapped, "PART", part)
        monkeypatch.setattr(objects, "ROWS", part)
        folder = tmp_path / str(part)
        in_files = load_planes(records, grid, offsets, planar=False, folder=folder / "planes")
        counted = count_cuts(in_files, lookup, folder / "seams")
        for ours, theirs in ((planes, in_files), (seams, counted)):
            for name, column in vars(ours).items():
                np.testing.assert_array_equal(column, getattr(theirs, name))
        path = folder / "objects.parquet"
        count = write_objects(path, records, lookup, offsets, geometry, counted, folder / "objects")
        assert pq.read_table(path).equals(pq.read_table(measured.objects))
        assert pq.ParquetFile(path).num_row_groups == -(-count // part)


def test_confidence_is_how_far_voxels_are_from_their_mean_beside_the_next_object(trained):
    results = trained.segment("sure", foreground_threshold=0.2, blocks={"shape_voxels": [64] * 3, "halo_voxels": 0},
                              clustering={"kind": "modes"}, stitching={"small_voxels": 0})  # fmt: skip
    plan, segments = Plan.read(Manifest.read(results.manifest("plan"))), whole(results.segments)
    embeddings, _ = plan.embedded(results, None).read(Box.of_shape(plan.shape))
    found = pq.read_table(results.objects).to_pydict()
    inside = {number: segments == number for number in found["id"]}
    means = {number: embeddings[:, mask].mean(axis=1, dtype=float) for number, mask in inside.items()}
    assert len(inside) > 5
    for row, number in enumerate(found["id"]):
        touched = set(np.unique(segments[ndimage.binary_dilation(inside[number])])) - {0, number}
        gap = min(np.linalg.norm(means[number] - means[o]) for o in touched or inside.keys() - {number})
        distance = np.linalg.norm(embeddings[:, inside[number]] - means[number][:, None], axis=0).mean()
        if found["fragments"][row] == 1:
            assert found["confidence"][row] == pytest.approx(np.clip(1 - 2 * distance / gap, 0, 1), abs=1e-5)
    (record,) = Records(results.ledger("cluster"), Manifest.read(results.manifest("cluster", 0)).result["records"], 1)
    assert sum(found["coreless"]) == record["coreless"].sum()


def test_seams_are_as_counted_in_the_segmentation(measured, volumes):
    plan, segments, _, _ = volumes
    sections, cut = np.zeros((2, 2), int), {}
    own, facing = np.zeros((2, segments.max() + 1), int)
    for axis, block, seam, *sides in planes_of(plan, segments):
        both = (sides[0] > 0) & (sides[1] > 0)
        for this, that in (sides, sides[::-1]):
            for number in np.unique(this[both]):
                faced = that[both & (this == number)]
                ends = 2 * (faced == number).sum() < len(faced)
                sections[int(seam)] += (1, ends)
                if seam:
                    own[number] += (faced == number).sum()
                    facing[number] += len(faced)
                    cut[block.index, axis] = cut.get((block.index, axis), 0) + int(ends)
    seams = Manifest.read(measured.manifest("stitch")).result["seams"]
    assert [seams["sections_inside"], seams["sections_at_seams"]] == sections[:, 0].tolist()
    assert seams["cut_inside"] == pytest.approx(sections[0, 1] / sections[0, 0])
    assert seams["cut_at_seams"] == pytest.approx(sections[1, 1] / sections[1, 0])
    assert seams["worst"]
    for worst in seams["worst"]:
        axis, first = "zyx".index(worst["axis"]), plan.cluster_grid.block(worst["blocks"][0])
        assert worst["cut"] == cut[first.index, axis]
        assert worst["start"][axis] + 1 == first.inner.stop[axis] == worst["stop"][axis] - 1
    agreement = pq.read_table(measured.objects)["seam_agreement"].to_pylist()
    assert agreement == [pytest.approx(o / f) if f else None for o, f in zip(own[1:], facing[1:], strict=True)]
    assert None in agreement


def test_a_cut_object_stands_out():
    # Blocks 0 and 1 along x: fragments 1 and 3 are one object, 2 and 4 another; inside nothing ends.
    where = np.array([[0, 2, 0], [1, 2, 0], [0, 2, 1]])
    pairs = np.array([[1, 1], [2, 2], [3, 3], [4, 4], [1, 3], [2, 4], [2, 3]])
    planes = Planes(where, np.array([0, 0, 1, 1, 2, 2, 2]), pairs, np.array([9, 9, 9, 9, 9, 7, 1]))
    right = count_cuts(planes, np.array([0, 1, 2, 1, 2]))
    assert (right.sections.tolist(), right.cut.tolist()) == ([2 * 2, 2 * 2, 2 * 2], [0, 0, 0])
    assert (right.own.tolist(), right.facing.tolist()) == ([0, 18, 14], [0, 19, 15])
    wrong = count_cuts(planes, np.array([0, 1, 2, 3, 2]))
    assert wrong.cut.tolist() == [0, 0, 2]
    dropped = count_cuts(planes, np.array([0, 1, 0, 1, 2]))
    assert dropped.sections.tolist() == [2, 4, 2]
    assert count_cuts(planes, np.zeros(5, int)).sections.tolist() == [0, 0, 0]


def test_axes_and_surface_of_an_ellipsoid():
    size = np.array([200.0, 100.0, 50.0])
    axes = np.array([3000.0, 2000.0, 1200.0])
    places = (np.indices((40, 60, 80)).reshape(3, -1).T - np.array([20, 30, 40])) * size
    solid = (((places / axes) ** 2).sum(axis=1) < 1).reshape(40, 60, 80)
    inside = np.argwhere(solid)
    covariance = np.cov(inside.T, bias=True) * len(inside)
    squares = np.array([[covariance[a, b] for a, b in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))]])
    lengths, direction = principal_axes(squares, np.array([len(inside)]), size)
    np.testing.assert_allclose(lengths[0], 2 * axes, rtol=0.02)
    np.testing.assert_allclose(direction[0], [1, 0, 0], atol=1e-6)
    ball = (((np.indices((50, 50, 50)) - 25) ** 2).sum(axis=0) < 20**2).astype(np.int8)
    faces = np.array([[np.abs(np.diff(ball, axis=a)).sum() for a in range(3)]])
    exact = 4 * np.pi * 2.0**2
    assert surface(faces, np.full(3, 100.0), planar=False)[0] == pytest.approx(exact, rel=0.02)
    disk = ball[25]
    edges = np.array([[0, *(np.abs(np.diff(disk, axis=a)).sum() for a in range(2))]])
    assert surface(edges, np.full(3, 100.0), planar=True)[0] == pytest.approx(2 * np.pi * 2.0 * 0.1, rel=0.03)


def test_nothing_to_measure_is_an_empty_report():
    empty = Planes(np.zeros((0, 3), int), np.zeros(0, int), np.zeros((0, 2), int), np.zeros(0, int))
    report = report_seams(empty, count_cuts(empty, np.zeros(1, int)), grid=None)
    assert report == {
        "cut_at_seams": None, "cut_inside": None, "sections_at_seams": 0, "sections_inside": 0, "worst": [],
    }  # fmt: skip
