from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spoco_blocks.clustering import Consistency, Context
from spoco_blocks.errors import SettingsError
from spoco_blocks.kernels.agreement import cluster_agreement

METHOD = Consistency(max_samples=4000)


def two_networks():
    """Three objects that both networks see; background that each embeds in its own way, and apart where f says one."""
    truth = np.zeros((2, 24, 48), np.uint32)
    truth[:, 2:12, 2:20], truth[:, 14:22, 4:40], truth[:, 3:12, 24:44] = 1, 2, 3
    rng = np.random.default_rng(0)

    def network(centres, background):
        values = np.array(centres, float)[truth] + rng.normal(0, 0.05, (*truth.shape, 3))
        values[truth == 0] = background[truth == 0]
        return values.transpose(3, 0, 1, 2).astype(np.float16)

    one_cluster = rng.normal(0, 0.1, (*truth.shape, 3))
    scattered = rng.uniform(-2, 2, (*truth.shape, 3))
    first = network([[0, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 3]], one_cluster)
    second = network([[0, 0, 0], [0, 4, 0], [4, 0, 0], [0, 0, -4]], scattered)
    return first, second, truth


def agreement(clusters, others, distance, anchors, seed):
    """Do the same one anchor at a time, as the published code does."""
    rng, found = np.random.default_rng(seed), [0.0]
    for cluster in range(1, clusters.max() + 1):
        mask, scores = clusters == cluster, []
        for anchor in rng.choice(np.flatnonzero(mask), anchors):
            near = np.linalg.norm(others - others[anchor], axis=1) < distance
            scores.append((mask & near).sum() / (mask | near).sum())
        found.append(float(np.median(scores)))
    return found


def test_agreement_equals_the_oracle():
    rng = np.random.default_rng(1)
    clusters = rng.integers(5, size=600).astype(np.uint32)
    others = (np.eye(5)[clusters] * 1.5 + rng.normal(0, 0.3, (600, 5))).astype(np.float32)
    np.testing.assert_allclose(cluster_agreement(clusters, others, 0.9, 25, 7), agreement(clusters, others, 0.9, 25, 7))
    assert cluster_agreement(np.array([2, 2], np.uint32), np.zeros((2, 3), np.float32), 0.5, 9, 0).tolist() == [0, 0, 1]


def test_what_both_networks_see_is_kept_without_a_foreground():
    first, second, truth = two_networks()
    everywhere = np.ones(truth.shape, bool)
    labels, confidences = METHOD.with_confidence(first, everywhere, Context(other=second))
    np.testing.assert_array_equal(labels > 0, truth > 0)
    assert len(np.unique(np.stack([labels.ravel(), truth.ravel()]), axis=1).T) == 4
    assert confidences[0] == 0
    assert confidences.shape == (4,)
    assert (confidences[1:] > 0.9).all()
    np.testing.assert_array_equal(labels, METHOD(first, everywhere, Context(other=second)))


def test_an_object_that_the_other_network_splits_is_less_sure():
    first, second, truth = two_networks()
    second = second.copy()
    second[2, :, 14:22, 4:13] += np.float16(3) * (truth[:, 14:22, 4:13] == 2)
    other = Context(other=second)
    labels, confidences = METHOD.with_confidence(first, truth > 0, other)
    split = labels[0, 18, 30]
    assert 0.6 < confidences[split] < 0.85
    assert (np.delete(confidences, [0, split]) > 0.9).all()
    strict = replace(METHOD, min_agreement=0.9)(first, truth > 0, other)
    np.testing.assert_array_equal(strict > 0, (truth > 0) & (truth != 2))


def test_without_the_other_network_it_says_so():
    first, second, truth = two_networks()
    for context in (None, Context()):
        with pytest.raises(ValueError, match="needs the embeddings of both networks"):
            METHOD(first, truth > 0, context)
    with pytest.raises(ValueError, match=r"expected .* \(c, 2, 24, 48\); got \(3, 2, 24, 40\)"):
        METHOD(first, truth > 0, Context(other=second[..., :40]))
    with pytest.raises(SettingsError, match="min_agreement"):
        Consistency(min_agreement=1.5)
