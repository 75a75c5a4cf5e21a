from __future__ import annotations

import numpy as np
import pytest
from oracles import grown

from spoco_blocks.kernels.growth import grow_and_refine


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(("shape", "rounds", "sweeps"), [((4, 8, 9), 3, 2), ((1, 12, 9), 5, 4), ((3, 5, 5), 0, 2)])
def test_equals_voxel_by_voxel(shape, rounds, sweeps, dtype):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        # Small integers: equal distances are common.
        embeddings = rng.integers(-2, 3, (3, *shape)).astype(dtype)
        means = rng.integers(-2, 3, (7, 3)).astype(np.float64)
        foreground = rng.random(shape) < 0.8
        labels = np.where(rng.random(shape) < 0.1, rng.integers(1, 7, shape), 0).astype(np.uint32) * foreground
        expected = grown(labels, embeddings, foreground, means, rounds, sweeps)
        grow_and_refine(labels, embeddings, foreground, means, rounds, sweeps)
        np.testing.assert_array_equal(labels, expected)


def test_no_labels_and_no_foreground():
    embeddings = np.zeros((2, 2, 2, 2), np.float32)
    for foreground in (np.zeros((2, 2, 2), bool), np.ones((2, 2, 2), bool)):
        labels = np.zeros((2, 2, 2), np.uint32)
        grow_and_refine(labels, embeddings, foreground, np.zeros((1, 2)), 3, 3)
        assert not labels.any()
