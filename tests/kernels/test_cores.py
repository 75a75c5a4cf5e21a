from __future__ import annotations

import numpy as np
import pytest

from spoco_blocks.kernels.components import equal_components
from spoco_blocks.kernels.cores import label_cores
from spoco_blocks.kernels.gradient import core_mask
from spoco_blocks.kernels.mode_seeking import nearest_modes
from spoco_blocks.kernels.regions import region_statistics

SHAPES = [(5, 9, 10), (1, 12, 9), (4, 1, 30), (6, 7, 1), (3, 40, 200)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("k", [0, 1, 7])
def test_equals_one_step_after_the_other(shape, k, dtype):
    rng = np.random.default_rng(k)
    modes = rng.normal(0, 2, (k, 3)).astype(np.float32)
    embeddings = rng.normal(0, 1, (3, *shape)).astype(dtype)
    foreground = rng.random(shape) < 0.8
    labels, sizes, sums = label_cores(embeddings, foreground, 3.0, modes, 2.0, 2)
    nearest = nearest_modes(embeddings, core_mask(embeddings, foreground, 3.0), modes, 2.0)
    expected, voxels = equal_components(nearest, 2)
    assert len(voxels) > 1
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(sizes, voxels)
    np.testing.assert_allclose(sums, region_statistics(expected, embeddings, len(voxels) - 1)[1], atol=1e-9)


def test_strips_do_not_show():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(0, 1, (4, 5, 23, 11)).astype(np.float16)
    foreground = rng.random((5, 23, 11)) < 0.9
    modes = rng.normal(0, 1, (5, 4)).astype(np.float32)
    whole = label_cores(embeddings, foreground, 3.5, modes, 2.0)
    moved = np.moveaxis(np.ascontiguousarray(np.moveaxis(embeddings, 0, -1)), -1, 0)
    wide = np.zeros((4, 5, 23, 20), np.float16)
    wide[..., 4:15] = embeddings
    for other in (moved, wide[..., 4:15]):
        again = label_cores(other, foreground, 3.5, modes, 2.0)
        for first, second in zip(whole, again, strict=True):
            np.testing.assert_array_equal(first, second)


def test_an_empty_foreground_has_no_cores():
    labels, sizes, sums = label_cores(
        np.ones((2, 3, 4, 5), np.float16), np.zeros((3, 4, 5), bool), 1.0, np.zeros((1, 2)), 1
    )
    assert not labels.any()
    assert sizes.tolist() == [0]
    assert sums.tolist() == [[0.0, 0.0]]
