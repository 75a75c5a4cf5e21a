from __future__ import annotations

import numpy as np
import pytest

from spoco_blocks.kernels.confidence import confidences, distance_sums, nearest_gaps
from spoco_blocks.kernels.contacts import contacts
from spoco_blocks.kernels.regions import region_statistics


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(4, 6, 7), (1, 20, 31), (3, 1, 200)])
def test_equals_masks(shape, dtype):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, shape).astype(np.uint32)
    labels[labels == 3] = 0
    embeddings = (rng.normal(0, 0.3, (3, *shape)) + 2 * np.eye(6)[labels, :3].transpose(3, 0, 1, 2)).astype(dtype)
    voxels, sums, *_ = region_statistics(labels, embeddings, 5)
    means = sums / np.maximum(voxels, 1)[:, None]
    spread = distance_sums(labels, embeddings, means) / np.maximum(voxels, 1)
    assert spread[[0, 3, 5]].tolist() == [0, 0, 0]
    confidence = confidences(spread, nearest_gaps(means, [contacts(labels)[0]], voxels > 0))
    for label in (1, 2, 4):
        distances = np.linalg.norm(embeddings[:, labels == label].astype(np.float64).T - means[label], axis=1)
        gap = min(np.linalg.norm(means[label] - means[other]) for other in {1, 2, 4} - {label})
        np.testing.assert_allclose(spread[label], distances.mean(), rtol=1e-4)
        np.testing.assert_allclose(confidence[label], np.clip(1 - 2 * distances.mean() / gap, 0, 1), atol=1e-4)


def test_a_sure_label_a_doubtful_one_and_one_alone():
    labels = np.repeat(np.array([1, 2, 0, 3], np.uint32), 50).reshape(1, 1, 200)
    means = np.array([[0, 0], [0, 0], [4, 0], [0, 2]], float)
    noise = np.random.default_rng(0).normal(0, 1, (2, 1, 1, 200)) * np.repeat([0.05, 2.5, 0, 0.05], 50)
    embeddings = (means[labels].transpose(3, 0, 1, 2) + noise).astype(np.float32)
    spread = distance_sums(labels, embeddings, means) / 50
    confidence = confidences(spread, nearest_gaps(means, [np.array([[1, 2]])], np.array([0, 1, 1, 1], bool)))
    assert confidence[1] > 0.9
    assert confidence[2] == 0
    assert 0.9 < confidence[3] < confidence[1]


def test_gaps_of_touching_labels_come_before_nearer_ones():
    means = np.array([[9], [0], [5], [1], [7]], float)
    present = np.array([0, 1, 1, 1, 0], bool)
    assert nearest_gaps(means, [np.array([[1, 2]])], present).tolist() == [np.inf, 5, 5, 1, np.inf]
    assert nearest_gaps(means[:2], [], present[:2]).tolist() == [np.inf, np.inf]


def test_pairs_may_come_in_parts():
    means = np.random.default_rng(0).normal(size=(9, 3))
    pairs = np.array([[1, 2], [2, 5], [3, 4], [4, 8], [6, 7]])
    present = np.ones(9, bool)
    parts = [pairs[:2], np.empty((0, 2), int), pairs[2:]]
    np.testing.assert_array_equal(nearest_gaps(means, parts, present), nearest_gaps(means, [pairs], present))


def test_one_alone_is_sure_and_equal_ones_are_not():
    spread = np.array([0.0, 0.3, 0.0, 0.5])
    gaps = np.array([np.inf, np.inf, 0, 2])
    assert confidences(spread, gaps).tolist() == [1, 1, 0, 0.5]
