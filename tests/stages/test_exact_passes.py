"""Exact stitching of embeddings that are given: as if written plainly on one array, and alike for any blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from exact_oracle import by_first_voxels, hard_volume, uncut

from bench.exact import exact_segments, stored
from bench.phantoms import Phantom
from spoco_blocks.clustering import Modes
from spoco_blocks.clustering.exact import exact_halo
from spoco_blocks.grid import BlockGrid
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.exact.seeds import FindSeeds
from spoco_blocks.stages.output import StoredOutput


def in_blocks(hard, block_shape, folder, **grid):
    return exact_segments(hard.phantom, hard.context, block_shape, folder, hard.scale, method=hard.method, **grid)


def test_many_blocks_give_what_the_passes_give_on_one_array(tmp_path):
    found = []
    for seed in range(8):
        hard = hard_volume(seed, (9, 26, 8))
        expected = uncut(hard)
        np.testing.assert_array_equal(in_blocks(hard, (9, 7, 5), tmp_path / str(seed)), expected)
        found.append((expected.max(), exact_halo(hard.method)))
    objects, margins = np.transpose(found)
    assert (objects > 5).sum() >= 4
    assert (margins < 12).any()


@pytest.mark.parametrize("seed", range(100, 106))
def test_random_blocks_do_not_show(tmp_path, seed):
    shape = (12, 20, 24)
    hard = hard_volume(seed, shape)
    expected = in_blocks(hard, shape, tmp_path / "one")
    edges = tuple(map(int, np.random.default_rng(seed).integers(4, 13, 3)))
    np.testing.assert_array_equal(in_blocks(hard, edges, tmp_path / "many"), expected)
    np.testing.assert_array_equal(in_blocks(hard, edges, tmp_path / "shifted", shifted=True), expected)


@pytest.mark.parametrize("seed", [2, 4])
def test_blocks_of_images_do_not_show(tmp_path, seed):
    hard = hard_volume(seed, (3, 13, 16), planar=True)
    expected = in_blocks(hard, (1, 13, 16), tmp_path / "one", planar=True)
    assert expected.max() > 1
    np.testing.assert_array_equal(in_blocks(hard, (1, 5, 6), tmp_path / "many", planar=True), expected)
    for image in (0, 1):
        alone = replace(
            hard,
            phantom=Phantom(hard.phantom.embeddings[:, [image]], hard.phantom.truth[[image]]),
        )
        found = in_blocks(alone, (1, 5, 6), tmp_path / f"image-{image}", planar=True)
        # Numbers go on from image to image.
        np.testing.assert_array_equal(by_first_voxels(found[0]), by_first_voxels(expected[image]))


@pytest.mark.parametrize("seed", [10, 24])
def test_objects_that_do_not_blend(tmp_path, seed):
    hard = hard_volume(seed, (6, 9, 40), blend_voxels=0)
    expected = uncut(hard)
    np.testing.assert_array_equal(in_blocks(hard, (6, 9, 8), tmp_path / "many"), expected)


def test_a_process_that_has_read_modes_reads_those_of_another_run(tmp_path):
    shape = (4, 5, 6)
    embeddings = stored(tmp_path, "embeddings", np.zeros((3, *shape), np.float16), shape)
    foreground = stored(tmp_path, "foreground", np.full(shape, 255, np.uint8), shape)
    seeds = stored(tmp_path, "seeds", np.zeros(shape, np.uint32), shape)
    source = Embedded(StoredOutput(embeddings, foreground, None, 3, 0), 0.5, None)
    for identity, mode, cores in (("first", 0.0, 1), ("second", 9.0, 0)):
        np.savez(tmp_path / "modes.npz", modes=np.full((1, 3), mode))
        task = FindSeeds(source, Modes(), (1.0, 1.0), tmp_path / "modes.npz", seeds, shape, identity)
        assert task(BlockGrid(shape, shape).block(0))["cores"] == cores
