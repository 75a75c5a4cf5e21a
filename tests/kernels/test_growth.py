from __future__ import annotations

import numpy as np
import pytest
from oracles import grown

from spoco_blocks.kernels.growth import Growth


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
        growth = Growth(labels, embeddings, foreground, means)
        growth.grow(rounds - rounds // 2)
        growth.grow(rounds // 2)
        left, vectors = growth.unreached
        growth.refine(sweeps)
        np.testing.assert_array_equal(growth.labels, expected)
        np.testing.assert_array_equal(left, np.flatnonzero(foreground & (expected == 0)))
        np.testing.assert_array_equal(vectors, embeddings.reshape(3, -1)[:, left].T)


def test_seeds_grow_like_labels_that_were_there():
    rng = np.random.default_rng(0)
    embeddings = rng.integers(-2, 3, (3, 4, 8, 9)).astype(np.float16)
    means = rng.integers(-2, 3, (5, 3)).astype(np.float64)
    foreground = rng.random((4, 8, 9)) < 0.9
    labels = np.where(rng.random((4, 8, 9)) < 0.1, rng.integers(1, 5, (4, 8, 9)), 0).astype(np.uint32) * foreground
    growth = Growth(np.where(labels > 2, 0, labels), embeddings, foreground, means[:3])
    places, _ = growth.unreached
    growth.seed(np.maximum(labels.reshape(-1)[places], 2) - 2, np.concatenate([means[:1], means[3:]]))
    growth.grow(3)
    np.testing.assert_array_equal(growth.labels, grown(labels, embeddings, foreground, means, 3, 0))


def test_no_labels_and_no_foreground():
    embeddings = np.zeros((2, 2, 2, 2), np.float32)
    for foreground in (np.zeros((2, 2, 2), bool), np.ones((2, 2, 2), bool)):
        growth = Growth(np.zeros((2, 2, 2), np.uint32), embeddings, foreground, np.zeros((1, 2)))
        growth.grow(3)
        growth.refine(3)
        assert not growth.labels.any()
        assert len(growth.unreached[0]) == foreground.sum()
