"""Blocks tile the volume, whatever the shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoco_blocks.errors import GridError
from spoco_blocks.grid import BlockGrid, Box, triple

small = st.tuples(*[st.integers(1, 12)] * 3)
halos = st.tuples(*[st.integers(0, 5)] * 3)


@given(small, small, halos)
def test_every_voxel_is_written_once_and_read_by_its_block(shape, block, halo):
    grid = BlockGrid(shape, block, halo)
    written = np.zeros(shape, int)
    for item in grid:
        written[item.inner.slices] += 1
        assert item.outer.contains(item.inner)
        assert Box.of_shape(shape).contains(item.outer)
        assert item.inner_local.shape == item.inner.shape
        assert grid.index(grid.position(item.index)) == item.index
    assert (written == 1).all()


@given(small, small, st.integers(1, 7))
def test_shards_share_out_all_blocks(shape, block, shards):
    grid = BlockGrid(shape, block)
    found = [index for shard in range(shards) for index in grid.shard(shard, shards)]
    assert found == list(range(len(grid)))


@given(small, small, small, small)
def test_touching_lists_the_blocks_that_share_a_voxel(shape, block, start, extent):
    grid = BlockGrid(shape, block)
    box = Box(start, triple(a + b for a, b in zip(start, extent, strict=True)))
    expected = [item.index for item in grid if item.inner.intersection(box).size]
    assert grid.touching(box) == expected


@given(small, halos, small)
def test_aligned_blocks_start_on_the_stride(shape, halo, counts):
    stride = (2, 4, 1)
    block = triple(c * s for c, s in zip(counts, stride, strict=True))
    grid = BlockGrid(shape, block, BlockGrid(shape, block, alignment=stride).aligned(halo), stride)
    for item in grid:
        assert all(a % s == 0 for a, s in zip(item.outer.start, stride, strict=True))


def test_errors_name_what_would_do():
    with pytest.raises(GridError, match=r"use \(8, 8, 8\)"):
        BlockGrid((16, 16, 16), (6, 8, 8), alignment=(4, 4, 4))
    with pytest.raises(GridError, match="0 to 7"):
        BlockGrid((4, 4, 4), (2, 2, 2)).block(8)
    with pytest.raises(GridError, match="before it starts"):
        Box((1, 0, 0), (0, 1, 1))
    with pytest.raises(GridError, match="three values"):
        triple([1, 2])
    with pytest.raises(GridError, match="no shard 3 of 3"):
        BlockGrid((4, 4, 4), (2, 2, 2)).shard(3, 3)
