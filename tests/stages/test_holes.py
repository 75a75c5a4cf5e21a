"""Holes: filled as on the whole array, wherever blocks cut it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from pipeline import punch_holes
from scipy import ndimage

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.ledger import Ledger, Records
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.errors import SettingsError
from spoco_blocks.grid import BlockGrid, Box
from spoco_blocks.kernels.gaps import number_gaps
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.measured import keep_inner, measure, unsought
from spoco_blocks.stages.output import StoredOutput
from spoco_blocks.stages.stitch.holes import fill_holes, load_pieces, segments_of_pieces
from spoco_blocks.stages.stitch.restitch import Sweep, restitch
from spoco_blocks.stages.stitch.tables import load_edges, load_fragments, load_overlaps
from spoco_blocks.volumes import open_volume

SHAPE = (14, 18, 22)
SOURCE = Embedded(StoredOutput(Source(uri="e"), Source(uri="f"), None, 2, 0), 0.5, None)
EVERYTHING = 10**6


def structure(planar):
    found = ndimage.generate_binary_structure(3, 1)
    found[[0, 2]] &= not planar
    return found


def filled(segments, most_voxels, sought, *, planar=False):
    """Fill holes of a whole array, one after the other."""
    result, bounded = segments.copy(), (1, 2) if planar else (0, 1, 2)
    pieces, count = ndimage.label(segments == 0, structure(planar))
    for number, place in zip(range(1, count + 1), ndimage.find_objects(pieces), strict=True):
        hole = pieces == number
        around = np.unique(segments[ndimage.binary_dilation(hole, structure(planar)) & ~hole])
        inside = all(place[a].start > 0 and place[a].stop < segments.shape[a] for a in bounded)
        if inside and len(around) == 1 and hole.sum() <= most_voxels and sought[hole].all():
            result[hole] = around[0]
    return result


def by_blocks(folder, segments, block_shape, most_voxels, sought, vanished=(), *, planar=False):
    """Cut a segmentation into blocks, drop some segments, fill holes on tables, and look every piece up."""
    grid = BlockGrid(segments.shape, block_shape, (0,) * 3)
    pieces_at, ids = np.zeros(segments.shape, int), [np.zeros(1, np.uint32)]
    with Ledger(folder, "shard-0", "i") as ledger:
        for block in grid:
            local = segments[block.inner.slices]
            there = np.unique(local[local > 0])
            # Numbers of fragments are those of the block alone, not in the order of the segments.
            labels, inner, _ = keep_inner(
                np.where(local > 0, len(there) - np.searchsorted(there, local), 0).astype("u4"), block
            )
            ids.append(np.where(np.isin(there[::-1], vanished), 0, there[::-1]).astype(np.uint32))
            pieces = number_gaps(inner, planar=planar)
            foreground = np.where(sought[block.inner.slices], 9, 0).astype(np.uint8)
            embeddings = np.zeros((2, *inner.shape), np.float32)
            tables = measure(labels, pieces, embeddings, foreground, block, SOURCE)
            ledger.commit(block.index, {**tables, "unsought": unsought(pieces, foreground)})
            pieces_at[block.inner.slices] = pieces
    records = Records(folder, "i", len(grid))
    fragments = load_fragments(records)
    pieces = load_pieces(records, fragments, gaps=True)
    plan = SimpleNamespace(cluster_grid=grid, shape=segments.shape, planar=planar)
    found = segments_of_pieces(np.concatenate(ids), fragments, pieces)
    result = fill_holes(records, plan, pieces, found, most_voxels)
    for block in grid:
        pieces_at[block.inner.slices] += pieces.offsets[block.index]
    return result.lookup[pieces_at], result


def spongy(seed=0, holes=0.12):
    """Objects that touch, with holes of all sizes in them, between them and at the border."""
    rng = np.random.default_rng(seed)
    owner = ndimage.gaussian_filter(rng.normal(size=(6, *SHAPE)), (0, 3, 3, 3)).argmax(axis=0) + 1
    noise = ndimage.gaussian_filter(rng.normal(size=SHAPE), 0.8)
    return np.where(noise < np.quantile(noise, holes), 0, owner).astype(np.uint32)


@pytest.mark.parametrize("most_voxels", [1, 5, EVERYTHING])
@pytest.mark.parametrize("block_shape", [SHAPE, (5, 7, 6), (14, 2, 22), (3, 3, 3)])
def test_holes_are_filled_as_on_the_whole_array(tmp_path, block_shape, most_voxels):
    segments, sought = spongy(), np.ones(SHAPE, bool)
    expected = filled(segments, most_voxels, sought)
    found, result = by_blocks(tmp_path, segments, block_shape, most_voxels, sought)
    np.testing.assert_array_equal(found, expected)
    assert result.voxels == (expected != segments).sum()
    assert result.holes == ndimage.label(expected != segments)[1] > 5
    assert (expected == 0).any()


@pytest.mark.parametrize("block_shape", [SHAPE, (5, 7, 6)])
def test_holes_outside_of_the_mask_stay(tmp_path, block_shape):
    segments, sought = spongy(), np.random.default_rng(1).random(SHAPE) > 0.4
    expected = filled(segments, EVERYTHING, sought)
    assert (expected != filled(segments, EVERYTHING, np.ones(SHAPE, bool))).any()
    np.testing.assert_array_equal(by_blocks(tmp_path, segments, block_shape, EVERYTHING, sought)[0], expected)


@pytest.mark.parametrize("block_shape", [SHAPE, (5, 7, 6)])
def test_what_was_too_small_is_background_in_a_hole(tmp_path, block_shape):
    segments, sought = spongy(), np.ones(SHAPE, bool)
    segments[4:10, 5:12, 7:14] = 1
    segments[5:9, 6:11, 8:13] = 0
    segments[6:8, 7:9, 9:11] = 7
    expected = filled(np.where(segments == 7, 0, segments).astype(np.uint32), EVERYTHING, sought)
    assert (expected[segments == 7] == 1).all()
    found, _ = by_blocks(tmp_path, segments, block_shape, EVERYTHING, sought, vanished=(7,))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("block_shape", [(1, 18, 22), (1, 5, 7)])
def test_holes_of_images_are_those_of_each_image(tmp_path, block_shape):
    segments, sought = spongy(holes=0.2), np.ones(SHAPE, bool)
    expected = filled(segments, EVERYTHING, sought, planar=True)
    assert ((expected != segments).sum(axis=(1, 2)) > 0)[[0, -1]].all()
    found, _ = by_blocks(tmp_path, segments, block_shape, EVERYTHING, sought, planar=True)
    np.testing.assert_array_equal(found, expected)


def test_a_shell_in_eight_blocks_becomes_a_ball_if_it_is_small_enough_and_closed(tmp_path):
    distance = np.linalg.norm(np.indices((20, 20, 20)) - 9.5, axis=0)
    shell, sought = ((distance < 8) & (distance > 5)).astype(np.uint32), np.ones((20, 20, 20), bool)
    inside = int((distance <= 5).sum())
    for most, name in ((inside, "fits"), (inside - 1, "large")):
        found, result = by_blocks(tmp_path / name, shell, (10, 10, 10), most, sought)
        np.testing.assert_array_equal(found, ndimage.binary_fill_holes(shell) if name == "fits" else shell)
        assert result.holes == (name == "fits")
    shell[9, 9, :10] = 0
    np.testing.assert_array_equal(by_blocks(tmp_path / "open", shell, (10, 10, 10), EVERYTHING, sought)[0], shell)


@pytest.mark.parametrize("load", [load_edges, load_overlaps])
def test_gaps_do_not_show_in_what_decides(tmp_path, load):
    segments, found = spongy(), []
    grid = BlockGrid(SHAPE, (5, 7, 6), (1, 1, 1))
    for gaps in (False, True):
        with Ledger(tmp_path / str(gaps), "shard-0", "i") as ledger:
            for block in grid:
                labels, inner, _ = keep_inner(segments[block.outer.slices], block)
                pieces = number_gaps(inner, planar=False) if gaps else inner
                foreground = np.full(labels.shape, 9, np.uint8)
                embeddings = np.random.default_rng(block.index).random((2, *labels.shape), np.float32)
                ledger.commit(block.index, measure(labels, pieces, embeddings, foreground, block, SOURCE))
        records = Records(tmp_path / str(gaps), "i", len(grid))
        fragments = load_fragments(records)
        found.append({**vars(fragments), **vars(load(records, grid, fragments.offsets, planar=False))})
    assert len(found[0]["pairs"]) > 100
    for name, without in found[0].items():
        np.testing.assert_array_equal(found[1][name], without)


@pytest.mark.parametrize("planar", [False, True])
def test_gaps_are_numbered_behind_the_labels(planar):
    labels = (spongy() > 3).astype(np.uint32) * 2
    labels[0, 0, 0] = 1
    pieces = number_gaps(labels, planar=planar)
    np.testing.assert_array_equal(np.where(pieces <= 2, pieces, 0), labels)
    expected, count = ndimage.label(labels == 0, structure(planar))
    pairs = np.unique(np.stack([expected[labels == 0], pieces[labels == 0]]), axis=1)
    assert pairs.shape[1] == count == pieces.max() - 2
    assert number_gaps(np.ones((2, 2, 2), np.uint32), planar=planar).max() == 1


SECTION = {
    "edit": punch_holes,
    "foreground_threshold": 0.2,
    "blocks": {"shape_voxels": [16, 16, 16], "halo_voxels": 4},
    "clustering": {"kind": "modes"},
}


def whole(uri):
    volume = open_volume(uri)
    return volume.read(Box.of_shape(volume.meta.shape))


def test_the_workflow_fills_holes_and_changes_nothing_else(trained):
    with_holes = trained.segment("with-holes", **SECTION, stitching={})
    without = trained.segment("without", **SECTION, stitching={"fill_holes_voxels": 40})
    np.testing.assert_array_equal(whole(without.fragments), whole(with_holes.fragments))
    before, after = whole(with_holes.segments), whole(without.segments)
    np.testing.assert_array_equal(after, filled(before, 40, whole(with_holes.foreground) > 0))
    told = Manifest.read(without.manifest("stitch")).result
    assert told["hole_voxels"] == (before != after).sum() > 0


def test_how_much_is_filled_is_decided_without_clustering_again(trained):
    trained.segment("refilled", **SECTION, stitching={"fill_holes_voxels": 1})
    for most in (0, 40):
        expected = trained.segment(f"filled-{most}", **SECTION, stitching={"fill_holes_voxels": most})
        sweep = Sweep((1.0,), {"fill_holes_voxels": str(most)}, score=True)
        (row,) = restitch(trained.layout, "refilled", sweep, Execution())
        scores = json.loads(expected.scores.read_text())
        assert row["are"] == pytest.approx(scores["are"], abs=1e-12)
        sizes = pq.read_table(expected.objects)["voxels"].to_numpy()
        assert (row["segments"], row["largest_voxels"]) == (len(sizes), sizes.max())
        assert row["median_voxels"] == np.median(sizes)


def test_holes_that_clustering_did_not_record_are_not_promised(trained):
    trained.segment("unrecorded", **SECTION)
    with pytest.raises(SettingsError, match=r"fill_holes_voxels is 9.*was 0.*clusters again"):
        restitch(trained.layout, "unrecorded", Sweep((1.0,), {"fill_holes_voxels": "9"}), Execution())
