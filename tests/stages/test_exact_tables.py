"""What exact stitching decides on tables, against the same on the whole array."""

from __future__ import annotations

import numpy as np
import pytest
from exact_oracle import by_first_voxels
from oracles import components, contacts

from bench.exact import stored
from spoco_blocks.engine.ledger import Ledger, Records
from spoco_blocks.grid import BlockGrid, Box
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.exact.placed import PlacedSeeds, write_seeds
from spoco_blocks.stages.exact.seeds import number_seeds
from spoco_blocks.stages.measured import measure
from spoco_blocks.stages.output import StoredOutput
from spoco_blocks.stages.stitch.tables import load_edges, load_fragments
from spoco_blocks.stages.stitch.whole import join_blocks
from spoco_blocks.volumes import open_volume

SHAPE = (7, 11, 13)
SOURCE = Embedded(StoredOutput(Source(uri="e"), Source(uri="f"), None, 2, 0), 0.5, None)
BLOCKS = [SHAPE, (3, 4, 5), (1, 11, 3)]


def first_voxels(labels, box):
    """Where in the volume the first voxel of each label lies."""
    inside = np.arange(np.prod(SHAPE)).reshape(SHAPE)[box.slices]
    return np.array([inside[labels == label].min() for label in range(1, labels.max(initial=0) + 1)], np.int64)


def totals(labels, embeddings, count):
    """Voxels of each label, and sums of their embeddings."""
    voxels = np.array([(labels == label).sum() for label in range(count + 1)])
    return voxels, np.array([embeddings[:, labels == label].sum(1) for label in range(count + 1)])


def seeds_in_blocks(folder, kinds, embeddings, grid):
    """Number seeds within blocks: connected voxels of one kind, of which 3 is that of thin objects."""
    everywhere = stored(folder, "seeds", np.zeros(SHAPE, np.uint32), grid.block_shape)
    with Ledger(folder / "ledger", "shard-0", "i") as ledger:
        for block in grid:
            inner = kinds[block.inner.slices]
            cores = components(np.where(inner < 3, inner, 0), 1)
            labels = by_first_voxels(cores, components(np.where(inner == 3, 3, 0), 1))
            voxels, sums = totals(labels, embeddings[:, *block.inner.slices], int(labels.max()))
            tables = {
                "voxels": voxels[1:], "sums": sums[1:].astype(float), "first": first_voxels(labels, block.inner),
                "cores": np.array([cores.max()]),
            }  # fmt: skip
            for axis, name in enumerate("zyx"):
                tables[f"{name}0"], last = np.take(labels, 0, axis), np.take(labels, -1, axis)
                behind = np.zeros_like(last)
                if block.inner.stop[axis] < SHAPE[axis]:
                    there = tuple(block.inner.stop[axis] if a == axis else s for a, s in enumerate(block.inner.slices))
                    behind = np.where(kinds[there] == np.take(inner, -1, axis), last, 0)
                tables[f"{name}1"] = behind.astype(np.uint32)
            open_volume(everywhere.uri).write(block.inner, labels)
            ledger.commit(block.index, tables)
    return everywhere, Records(folder / "ledger", "i", len(grid))


@pytest.mark.parametrize("block_shape", BLOCKS)
def test_seeds_are_numbered_and_read_as_on_the_whole_array(tmp_path, block_shape):
    rng = np.random.default_rng(0)
    kinds = rng.choice(4, SHAPE, p=[0.4, 0.25, 0.15, 0.2]).astype(np.int32)
    embeddings = rng.integers(-9, 9, (2, *SHAPE))
    grid = BlockGrid(SHAPE, block_shape)
    everywhere, records = seeds_in_blocks(tmp_path, kinds, embeddings, grid)
    cores = components(np.where(kinds < 3, kinds, 0), 1)
    expected = by_first_voxels(cores, components(np.where(kinds == 3, 3, 0), 1))
    count = int(expected.max())
    voxels, sums = totals(expected, embeddings, count)
    found = number_seeds(records, grid, planar=False)
    assert found.cores == cores.max()
    np.testing.assert_allclose(found.means[1:], sums[1:] / voxels[1:, None], rtol=1e-14)
    write_seeds(tmp_path / "tables", found)
    placed = PlacedSeeds(everywhere, tmp_path / "tables", grid, "i")
    for _ in range(10):
        start = rng.integers(0, SHAPE)
        box = Box(tuple(start.tolist()), tuple((start + 1 + rng.integers(0, np.array(SHAPE) - start)).tolist()))
        labels, ids, known = placed.read(box)
        np.testing.assert_array_equal(ids[labels], expected[box.slices])
        np.testing.assert_array_equal(ids, np.unique(ids))
        assert (ids <= found.cores).sum() == 1 + known


def test_images_share_no_seeds(tmp_path):
    kinds, grid = np.ones(SHAPE, np.int32), BlockGrid(SHAPE, (1, 6, 6))
    _, records = seeds_in_blocks(tmp_path, kinds, np.zeros((2, *SHAPE)), grid)
    # Each image is cut into six blocks.
    assert np.bincount(number_seeds(records, grid, planar=True).ids).tolist() == [1] + [6] * 7
    assert np.bincount(number_seeds(records, grid, planar=False).ids).tolist() == [1, 42]


def test_no_seeds(tmp_path):
    grid = BlockGrid(SHAPE, (4, 4, 4))
    _, records = seeds_in_blocks(tmp_path, np.zeros(SHAPE, np.int32), np.zeros((2, *SHAPE)), grid)
    found = number_seeds(records, grid, planar=False)
    assert (found.cores, found.ids.tolist(), found.means.shape) == (0, [0], (1, 2))


@pytest.mark.parametrize("least", [1, 3])
@pytest.mark.parametrize("block_shape", BLOCKS)
def test_fragments_of_blocks_are_joined_to_those_of_the_whole_array(tmp_path, block_shape, least):
    rng = np.random.default_rng(least)
    pieces = rng.choice([0, 3, 5, 8, 900], SHAPE, p=[0.3, 0.2, 0.2, 0.2, 0.1])
    left = (rng.random(SHAPE) < 0.25) & (pieces == 0)
    embeddings = rng.integers(-9, 9, (2, *SHAPE)).astype(np.float32)
    grid, fragment_of = BlockGrid(SHAPE, block_shape), np.zeros(SHAPE, np.int64)
    with Ledger(tmp_path, "shard-0", "i") as ledger:
        for block in grid:
            mine, rest = pieces[block.inner.slices], components(left[block.inner.slices].astype(np.int32), 1)
            known = np.unique(mine[mine > 0])
            inner = np.where(rest > 0, rest + len(known), np.where(mine > 0, 1 + np.searchsorted(known, mine), 0))
            inner = np.ascontiguousarray(inner, np.uint32)
            own, probability = embeddings[:, *block.inner.slices], np.zeros(inner.shape, np.uint8)
            tables = measure(inner, inner, own, probability, block, SOURCE)
            tables["ids"] = np.concatenate([known, np.zeros(rest.max(), np.int64)])
            ledger.commit(block.index, tables | {"first": first_voxels(inner, block.inner)})
            fragment_of[block.inner.slices] = inner
    records = Records(tmp_path, "i", len(grid))
    fragments = load_fragments(records)
    for block in grid:
        fragment_of[block.inner.slices] += np.where(
            fragment_of[block.inner.slices] > 0, fragments.offsets[block.index], 0
        )
    edges = load_edges(records, grid, fragments.offsets, planar=False)
    found = join_blocks(records, fragments, edges, least)
    whole, rest = np.searchsorted([0, 3, 5, 8, 900], pieces), components(left.astype(np.int32), least)
    expected = np.where(rest > 0, rest + 4, whole)
    np.testing.assert_array_equal(found.of_fragment[fragment_of], expected)
    voxels, sums = totals(expected, embeddings, int(expected.max()))
    np.testing.assert_array_equal(found.fragments.voxels[1:], voxels[1:])
    np.testing.assert_array_equal(found.fragments.sums[1:], sums[1:])
    counted = dict(zip(map(tuple, found.edges.pairs.tolist()), found.edges.contacts.tolist(), strict=True))
    assert counted == contacts(expected)
