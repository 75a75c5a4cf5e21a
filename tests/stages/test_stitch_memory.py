"""The table of objects and the planes: what is held does not grow with the volume, and parts do not show."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pyarrow.parquet as pq
import pytest

from spoco_blocks.engine.ledger import Ledger, Records
from spoco_blocks.grid import BlockGrid
from spoco_blocks.kernels.confidence import nearest_gaps
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.measured import measure
from spoco_blocks.stages.output import StoredOutput
from spoco_blocks.stages.stitch import mapped, objects
from spoco_blocks.stages.stitch.mapped import Workspace
from spoco_blocks.stages.stitch.nearest import gaps_to_nearest
from spoco_blocks.stages.stitch.objects import Geometry, write_objects
from spoco_blocks.stages.stitch.seams import count_cuts, load_planes
from spoco_blocks.stages.stitch.sums import Sums

SOURCE = Embedded(StoredOutput(Source(uri="e"), Source(uri="f"), None, 3, 0), 0.5, None)


def many(folder, layers):
    """Records of blocks of 4³ voxels with 16 fragments, 10 blocks to a layer; every second pair touches."""
    grid, rng = BlockGrid((4 * layers, 8, 20), (4, 4, 4)), np.random.default_rng(0)
    labels = (np.indices((4, 4, 4)) // np.array([2, 2, 1]).reshape(3, 1, 1, 1)).transpose(1, 2, 3, 0) @ [8, 4, 1] + 1
    labels, probability = labels.astype(np.uint32), np.full((4, 4, 4), 255, np.uint8)
    usual = measure(labels, labels, np.zeros((3, 4, 4, 4), np.float32), probability, grid.block(0), SOURCE)
    with Ledger(folder, "shard-0", "i") as ledger:
        for block in grid:
            origin, means = np.array(block.inner.start), rng.normal(size=(16, 3)) + np.array(block.inner.start) / 4
            moved = {name: usual[name] + origin for name in ("start", "stop")}
            moved["positions"] = usual["positions"] + usual["voxels"][:, None] * origin
            moved["pairs"] = usual["pairs"][::2] if block.index % 2 else usual["pairs"][:0]
            ledger.commit(block.index, usual | moved | {"sums": means * usual["weights"][:, None]})
    return grid, Records(folder, "i", len(grid))


def test_what_is_held_does_not_grow_with_the_segments(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "PART", 500)
    monkeypatch.setattr(objects, "ROWS", 500)

    def held_bytes(layers):
        folder = tmp_path / str(layers)
        grid, records = many(folder, layers)
        offsets, lookup = 16 * np.arange(len(grid) + 1), np.arange(16 * len(grid) + 1)
        tracemalloc.start()
        planes = load_planes(records, grid, offsets, planar=False, folder=folder / "planes")
        seams = count_cuts(planes, lookup, folder / "seams")
        path, geometry = folder / "objects.parquet", Geometry(grid, (1.0, 1.0, 1.0), planar=False)
        assert write_objects(path, records, lookup, offsets, geometry, seams, folder / "objects") == 16 * len(grid)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert pq.ParquetFile(path).metadata.row_group(0).num_rows == 500
        return peak

    held_bytes(10)
    assert held_bytes(160) < 1.3 * held_bytes(40)


def test_no_segment_is_a_table_without_rows(tmp_path):
    grid, records = many(tmp_path / "records", 1)
    offsets, lookup = 16 * np.arange(len(grid) + 1), np.zeros(16 * len(grid) + 1, int)
    seams = count_cuts(load_planes(records, grid, offsets, planar=False), lookup)
    path, geometry = tmp_path / "objects.parquet", Geometry(grid, (1.0, 1.0, 1.0), planar=False)
    assert write_objects(path, records, lookup, offsets, geometry, seams, tmp_path / "objects") == 0
    table = pq.read_table(path)
    assert table.num_rows == 0
    assert {"id", "voxels", "confidence", "seam_agreement"} <= set(table.column_names)


@pytest.mark.parametrize("part", [1, 13, 1000])
@pytest.mark.parametrize("spread", [0.0, 20.0])
def test_the_nearest_of_all_is_found_part_by_part(tmp_path, monkeypatch, spread, part):
    # With a spread, means follow their numbers, as those of objects with coordinates do: most parts are left out.
    rng, n = np.random.default_rng(2), 200
    weights = rng.integers(1, 9, n)
    means = rng.normal(size=(n, 4)) + np.linspace(0, spread, n)[:, None]
    means[50] = means[150]
    voxels = np.where(rng.random(n) < 0.1, 0, 5)
    pairs = [rng.integers(1, n // 2, (30, 2)), np.zeros((0, 2), int)]
    pairs = [p[(p[:, 0] != p[:, 1]) & (voxels[p] > 0).all(axis=1)] for p in pairs]
    monkeypatch.setattr(mapped, "PART", part)
    space = Workspace(tmp_path)
    sums = Sums.of(n - 1, {"sums": np.zeros((1, 4))}, space)
    sums.voxels[:], sums.weight[:], sums.embedding[:] = voxels, weights, means * weights[:, None]
    found = gaps_to_nearest(sums, pairs, space)
    expected = nearest_gaps(sums.means(slice(None)), pairs, voxels > 0)
    np.testing.assert_array_equal(found[1:], expected[1:])
    assert np.isinf(expected[1:]).sum() == (voxels[1:] == 0).sum() > 5
    assert 10 < len(np.unique(np.concatenate(pairs))) < n / 2
    sums.voxels[2:] = 0
    assert np.isinf(gaps_to_nearest(sums, [], Workspace(tmp_path / "one"))).all()
