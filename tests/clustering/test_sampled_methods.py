from __future__ import annotations

import numpy as np
import pytest

from spoco_blocks.clustering import Hdbscan, MeanShift
from spoco_blocks.errors import SettingsError


@pytest.fixture(scope="module")
def strips():
    """Three objects of known embedding; the first comes in two parts."""
    truth = np.zeros((4, 20, 40), np.uint32)
    truth[:, :, 1:10], truth[:, :, 10:20], truth[:, :, 20:30], truth[:, :, 30:39] = 1, 2, 3, 1
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 3]])
    embeddings = centres[truth] + rng.normal(0, 0.12, (*truth.shape, 3))
    return embeddings.transpose(3, 0, 1, 2).astype(np.float32), truth


@pytest.mark.parametrize("method", [MeanShift(max_samples=800), Hdbscan(max_samples=800)], ids=lambda m: m.kind)
def test_parts_become_objects_or_not(strips, method):
    embeddings, truth = strips
    parts = truth.copy()
    parts[:, :, 30:] = np.where(truth[:, :, 30:] == 1, 4, 0)
    np.testing.assert_array_equal(method(embeddings, truth > 0), parts)
    joined = type(method)(max_samples=800, connected=False)(embeddings, truth > 0)
    pairs = np.unique(np.stack([joined.ravel(), truth.ravel()]), axis=1)
    assert pairs.shape[1] == 4


@pytest.mark.parametrize(
    ("method", "kept"),
    [
        (MeanShift(max_samples=800), True),
        (MeanShift(max_samples=800, max_distance=1.0), False),
        (Hdbscan(max_samples=800), True),
        (Hdbscan(max_samples=800, noise="background"), False),
    ],
)
def test_far_voxels(strips, method, kept):
    embeddings, truth = strips
    embeddings = embeddings.copy()
    embeddings[:, 2, 5, 5] = 0, 0, 1.3
    embeddings[:, 2, 5, 6] = 1.4, 0.0, 0.0
    labels = method(embeddings, truth > 0)
    assert (labels[2, 5, 6] > 0) == kept


@pytest.mark.parametrize("kind", [MeanShift, Hdbscan])
def test_settings_out_of_range_are_refused(kind):
    with pytest.raises(SettingsError, match="max_samples"):
        kind(max_samples=0)
    with pytest.raises(SettingsError, match="min_cluster_size"):
        Hdbscan(min_cluster_size=1)
