"""The global decision on tables alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from oracles import adjusted_rand_index
from scipy import ndimage

from spoco_blocks.engine.ledger import Ledger, Records
from spoco_blocks.grid import BlockGrid
from spoco_blocks.kernels.agglomeration import agglomerate
from spoco_blocks.kernels.merged_modes import merge_modes
from spoco_blocks.settings.sections import Source
from spoco_blocks.settings.segmentation import StitchingSettings
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.measured import FACES, keep_inner, measure, on_lattice
from spoco_blocks.stages.output import StoredOutput
from spoco_blocks.stages.stitch.decision import decide, distinct_pairs, join_overlapping, number_segments
from spoco_blocks.stages.stitch.tables import Edges, following, load_edges, load_fragments, load_overlaps

SHAPE = (12, 14, 16)
SOURCE = Embedded(StoredOutput(Source(uri="e"), Source(uri="f"), None, 3, 0), 0.5, (4.0, 4.0, 4.0))


@pytest.fixture
def truth():
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), 1.5)
    return ndimage.label(noise > 0)[0]


def stitched(folder, truth, block_shape, halo, *, planar=False):
    """Cut a labelling into blocks, forget how the pieces belong together, and stitch them by embeddings."""
    rng = np.random.default_rng(1)
    colours = rng.normal(size=(truth.max() + 1, 4)) * 10
    embeddings = np.moveaxis(colours[truth], -1, 0).astype(np.float32)
    grid = BlockGrid(truth.shape, block_shape, halo)
    written = np.zeros(truth.shape, np.int64)
    with Ledger(folder, "shard-0", "i") as ledger:
        for block in grid:
            structure = ndimage.generate_binary_structure(3, 1)
            structure[[0, 2]] &= not planar
            pieces = ndimage.label(truth[block.outer.slices] > 0, structure)[0].astype(np.uint32)
            labels, inner, _ = keep_inner(pieces, block)
            written[block.inner.slices] = inner
            local = embeddings[(slice(None), *block.outer.slices)].copy()
            local[:3] -= np.array(block.outer.start).reshape(3, 1, 1, 1) / 4
            ledger.commit(
                block.index, measure(labels, inner, local, np.full(pieces.shape, 200, np.uint8), block, SOURCE)
            )
    return grid, Records(folder, "i", len(grid)), written, colours


def tables(records, grid, load, folder=None):
    """Fragments and edges, in memory or in files."""
    fragments = load_fragments(records, folder)
    return fragments, load(records, grid, fragments.offsets, planar=False, folder=folder)


def everywhere(grid, written, lookup, offsets):
    """Look the fragments of all blocks up."""
    found = np.zeros(SHAPE, np.int64)
    for block in grid:
        local = written[block.inner.slices]
        found[block.inner.slices] = np.where(local > 0, lookup[local + offsets[block.index]], 0)
    return found


@pytest.mark.parametrize("halo", [(0, 0, 0), (2, 2, 2)])
@pytest.mark.parametrize("block_shape", [(12, 14, 16), (4, 5, 6), (6, 14, 3)])
def test_pieces_of_a_component_find_together(tmp_path, truth, block_shape, halo):
    grid, records, written, _ = stitched(tmp_path, truth, block_shape, halo)
    fragments, edges = tables(records, grid, load_edges)
    assert fragments.voxels.sum() == (truth > 0).sum()
    roots = agglomerate(
        edges.pairs, edges.contacts, np.zeros(len(edges.pairs), bool), fragments.weights, fragments.sums,
        merge_distance=1.0, small_voxels=0, small_distance=1.0,
    )  # fmt: skip
    lookup = number_segments(roots, fragments.voxels, 0)
    found = everywhere(grid, written, lookup, fragments.offsets)
    pairs = {(int(a), int(b)) for a, b in zip(truth.ravel(), found.ravel(), strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert set(np.unique(found)) == set(range(truth.max() + 1))


@pytest.mark.parametrize("load", [load_edges, load_overlaps])
def test_tables_in_files_and_small_batches_change_nothing(tmp_path, truth, load):
    grid, records, _, _ = stitched(tmp_path / "records", truth, (4, 5, 6), (2, 2, 2))
    fragments, edges = tables(records, grid, load)
    mapped = tables(records, grid, load, tmp_path)
    for ours, theirs in ((fragments, mapped[0]), (edges, mapped[1])):
        for name, column in vars(ours).items():
            np.testing.assert_array_equal(column, getattr(theirs, name))
    if load is load_edges:
        settings = StitchingSettings()
        found = decide(*mapped, settings, final=False, folder=tmp_path / "work", batch=7)
        np.testing.assert_array_equal(found, decide(fragments, edges, settings, final=False, folder=tmp_path))
        assert (tmp_path / "work").exists()
        assert not list(tmp_path.glob("merge*"))


def recorded(folder, grid, views, embeddings, *, lattice=True):
    """Records of blocks whose labels of their outer boxes are given."""
    source = replace(SOURCE, coordinate_scale=None)
    with Ledger(folder, "shard-0", "i") as ledger:
        for block, view in zip(grid, views, strict=True):
            labels, inner, _ = keep_inner(view, block)
            part = np.ascontiguousarray(embeddings[(slice(None), *block.outer.slices)])
            tables = measure(labels, inner, part, np.full(view.shape, 200, np.uint8), block, source)
            if lattice:
                tables["lattice"] = on_lattice(labels, block, planar=False)
            ledger.commit(block.index, tables)
    return Records(folder, "i", len(grid))


@pytest.mark.parametrize(("lattice", "segments"), [(True, 2), (False, 4)])
def test_a_sliver_finds_the_object_that_its_block_sees_in_the_halo(tmp_path, lattice, segments):
    # Blocks meet at x = 8. The first gives voxel (0, 0, 7) to the object beyond, of which the second sees none there.
    grid = BlockGrid((8, 8, 16), (8, 8, 8), (4, 4, 4))
    first, second = np.ones((8, 8, 12), np.uint32), np.ones((8, 8, 12), np.uint32)
    first[:, :, 8:] = first[0, 0, 7] = 2
    second[:, :, 4:] = 2
    second[0, 0, :] = 1
    embeddings = np.zeros((3, 8, 8, 16), np.float32)
    embeddings[:, :, :, 8:] = 5
    records = recorded(tmp_path, grid, (first, second), embeddings, lattice=lattice)
    fragments, edges = tables(records, grid, load_edges)
    assert fragments.voxels.tolist() == [0, 8 * 8 * 8 - 1, 1, 8, 8 * 8 * 8 - 8]
    settings = StitchingSettings(small_voxels=0)
    found = decide(fragments, edges, settings, final=False, folder=tmp_path)
    assert len(np.unique(found[1:])) == segments
    assert (found[2] == found[4]) == lattice


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("halo", [(0, 3, 5), (0, 0, 0)])
def test_what_two_blocks_see_is_counted_at_every_fourth_voxel(tmp_path, planar, halo):
    rng, shape = np.random.default_rng(4), (5, 13, 26)
    grid, views = BlockGrid(shape, (5, 7, 9), halo), []
    with Ledger(tmp_path, "shard-0", "i") as ledger:
        for block in grid:
            view = rng.integers(0, 4, block.outer.shape).astype(np.uint32)
            planes = {name: np.zeros((1, 1), np.uint32) for name in FACES}
            own = {"pairs": np.zeros((0, 2), np.uint32), "contacts": np.zeros(0, np.int64), "weights": np.zeros(3)}
            ledger.commit(block.index, {"lattice": on_lattice(view, block, planar=planar), **planes, **own})
            views.append(np.zeros(shape, int))
            views[-1][block.outer.slices] = view
    places = np.indices(shape) % 4 == 0
    places = places[1:].all(axis=0) if planar else places.all(axis=0)
    expected = {}
    for block in grid:
        for _, other in following(grid, block.index, planar=planar):
            for a, b in zip(views[block.index][places], views[other][places], strict=True):
                if a and b:
                    pair = (a + 3 * block.index, b + 3 * other)
                    expected[pair] = expected.get(pair, 0) + 1
    edges = load_edges(Records(tmp_path, "i", len(grid)), grid, 3 * np.arange(len(grid) + 1), planar=planar)
    assert dict(zip(map(tuple, edges.pairs.tolist()), edges.contacts.tolist(), strict=True)) == expected
    assert bool(expected) == any(halo)
    assert not edges.same_block.any()


def test_means_are_in_the_volumes_frame(tmp_path, truth):
    _, records, _, colours = stitched(tmp_path, truth, (4, 5, 6), (1, 1, 1))
    fragments = load_fragments(records)
    means = fragments.sums[1:] / fragments.weights[1:, None]
    nearest = np.linalg.norm(means[:, None] - colours[None, 1:], axis=2).min(1)
    assert nearest.max() < 1e-4


def test_images_are_never_stitched(tmp_path, truth):
    grid, records, _, _ = stitched(tmp_path, truth, (1, 7, 8), (0, 2, 2), planar=True)
    pairs = load_edges(records, grid, load_fragments(records).offsets, planar=True).pairs
    image = np.searchsorted(load_fragments(records).offsets, np.arange(1, 1 + pairs.max())) - 1
    layer = image // (len(grid) // SHAPE[0])
    assert len(pairs)
    assert (layer[pairs[:, 0] - 1] == layer[pairs[:, 1] - 1]).all()


def test_what_a_block_saw_apart_is_distinct(tmp_path, truth):
    grid, records, _, _ = stitched(tmp_path, truth, (6, 14, 16), (0, 0, 0))
    fragments, edges = tables(records, grid, load_edges)
    distinct = distinct_pairs(fragments, edges, 2.0)
    assert not distinct[~edges.same_block].any()
    assert (distinct_pairs(fragments, edges, 1e-9) == edges.same_block).all()


@pytest.mark.parametrize("block_shape", [(4, 5, 6), (6, 14, 3)])
def test_final_objects_find_together_by_what_two_blocks_see(tmp_path, truth, block_shape):
    grid, records, written, _ = stitched(tmp_path, truth, block_shape, (2, 2, 2))
    fragments, edges = tables(records, grid, load_overlaps)
    lookup = number_segments(join_overlapping(edges, len(fragments.voxels), 0.5), fragments.voxels, 0)
    assert adjusted_rand_index(truth, everywhere(grid, written, lookup, fragments.offsets)) == 1.0


def test_a_chain_does_not_join_what_one_block_saw_apart():
    # Blocks A (1, 2) and B (3): 3 overlaps 1 wholly and 2 by most of it, but A saw 1 and 2 touch as two objects.
    pairs = np.array([[1, 2], [1, 3], [2, 3]])
    edges = Edges(pairs, np.array([9, 1000, 700]), np.array([True, False, False]))
    assert join_overlapping(edges, 4, 0.5).tolist() == [0, 1, 2, 1]
    apart = Edges(pairs[1:], np.array([1000, 700]), np.array([False, False]))
    assert join_overlapping(apart, 4, 0.5).tolist() == [0, 1, 1, 1]
    assert join_overlapping(apart, 4, 0.8).tolist() == [0, 1, 2, 1]


def test_segments_are_numbered_without_gaps():
    roots, voxels = np.array([0, 1, 1, 3, 4, 3]), np.array([0, 5, 5, 1, 30, 2])
    assert number_segments(roots, voxels, 0).tolist() == [0, 1, 1, 2, 3, 2]
    assert number_segments(roots, voxels, 4).tolist() == [0, 1, 1, 0, 2, 0]


def test_modes_of_one_object_are_merged():
    modes = np.array([[0.0, 0], [0.5, 0], [5, 0], [5.2, 0], [9, 9]])
    merged, owner = merge_modes(modes, np.array([10, 20, 30, 5, 1]), 1.0)
    assert merged.tolist() == [[5, 0], [0.5, 0], [9, 9]]
    assert owner.tolist() == [1, 1, 0, 0, 2]
    empty, none = merge_modes(np.zeros((0, 2)), np.zeros(0, int), 1.0)
    assert len(empty) == len(none) == 0
