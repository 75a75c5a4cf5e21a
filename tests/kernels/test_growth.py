from __future__ import annotations

import numpy as np
import pytest
from oracles import grown

from spoco_blocks.kernels.growth import Growth


def unlabelled(labels, foreground):
    return np.flatnonzero(foreground & (labels == 0))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(("shape", "rounds"), [((4, 8, 9), 3), ((1, 12, 9), 5), ((3, 5, 5), 0)])
def test_equals_voxel_by_voxel(shape, rounds, dtype):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        # Small integers: equal distances are common.
        embeddings = rng.integers(-2, 3, (3, *shape)).astype(dtype)
        means = rng.integers(-2, 3, (7, 3)).astype(np.float64)
        foreground = rng.random(shape) < 0.8
        labels = np.where(rng.random(shape) < 0.1, rng.integers(1, 7, shape), 0).astype(np.uint32) * foreground
        expected = grown(labels, embeddings, foreground, means, rounds)
        growth = Growth(np.pad(labels, 1), embeddings, unlabelled(labels, foreground), means)
        growth.grow(rounds - rounds // 2)
        growth.grow(rounds // 2)
        left, vectors = growth.unreached
        np.testing.assert_array_equal(growth.padded, np.pad(expected, 1))
        np.testing.assert_array_equal(left, unlabelled(expected, foreground))
        np.testing.assert_array_equal(vectors, embeddings.reshape(3, -1)[:, left].T)


def test_seeds_grow_like_labels_that_were_there():
    rng = np.random.default_rng(0)
    embeddings = rng.integers(-2, 3, (3, 4, 8, 9)).astype(np.float16)
    means = rng.integers(-2, 3, (5, 3)).astype(np.float64)
    foreground = rng.random((4, 8, 9)) < 0.9
    labels = np.where(rng.random((4, 8, 9)) < 0.1, rng.integers(1, 5, (4, 8, 9)), 0).astype(np.uint32) * foreground
    first = np.where(labels > 2, 0, labels).astype(np.uint32)
    growth = Growth(np.pad(first, 1), embeddings, unlabelled(first, foreground), means[:3])
    places, _ = growth.unreached
    growth.seed(np.maximum(labels.reshape(-1)[places], 2) - 2, np.concatenate([means[:1], means[3:]]))
    growth.grow(3)
    np.testing.assert_array_equal(growth.padded, np.pad(grown(labels, embeddings, foreground, means, 3), 1))


def test_no_labels_and_no_foreground():
    embeddings = np.zeros((2, 2, 2, 2), np.float32)
    for foreground in (np.zeros((2, 2, 2), bool), np.ones((2, 2, 2), bool)):
        growth = Growth(np.zeros((4, 4, 4), np.uint32), embeddings, np.flatnonzero(foreground), np.zeros((1, 2)))
        growth.grow(3)
        assert not growth.padded.any()
        assert len(growth.unreached[0]) == foreground.sum()
