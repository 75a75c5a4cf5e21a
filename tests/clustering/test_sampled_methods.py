from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spoco_blocks.clustering import GridHdbscan, Hdbscan, MeanShift, MeanShiftPlus
from spoco_blocks.clustering.mean_shift_plus import joined_to_larger
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


KINDS = [MeanShift, MeanShiftPlus, Hdbscan]


@pytest.mark.parametrize("method", [kind(max_samples=800) for kind in KINDS], ids=lambda m: m.kind)
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


@pytest.mark.parametrize("kind", KINDS)
def test_settings_out_of_range_are_refused(kind):
    with pytest.raises(SettingsError, match="max_samples"):
        kind(max_samples=0)
    with pytest.raises(SettingsError, match="outer_distance"):
        GridHdbscan(outer_distance=0)
    with pytest.raises(SettingsError, match="min_cluster_size"):
        GridHdbscan(min_cluster_size=1)
    with pytest.raises(SettingsError, match="min_cluster_size"):
        Hdbscan(min_cluster_size=1)


@pytest.mark.parametrize("method", [*(kind(max_samples=2000) for kind in KINDS), GridHdbscan()], ids=lambda m: m.kind)
def test_background_is_given_or_one_more_cluster(strips, method):
    embeddings, truth = strips
    embeddings, truth = np.pad(embeddings, [(0, 0), (0, 0), (0, 60), (0, 0)]), np.pad(truth, [(0, 0), (0, 60), (0, 0)])
    embeddings += np.random.default_rng(1).normal(0, 0.05, embeddings.shape).astype(np.float32)
    given = method(embeddings, truth > 0)
    everywhere = np.ones(truth.shape, bool)
    found = replace(method, largest_is_background=True)(embeddings, everywhere)
    # On the grid, background one voxel wide is noise between two clusters.
    assert np.mean(found != given) <= (0.02 if method.kind == "grid_hdbscan" else 0)
    assert method(embeddings, everywhere).max() == given.max() + 1


def joined(clusters, embeddings, distance):
    """Join clusters as the published code does: by falling size, to the nearest anchor that is near enough."""
    out, anchors, owners = clusters.copy(), [], []
    labels, counts = np.unique(clusters[clusters > 0], return_counts=True)
    for label in labels[np.argsort(-counts, kind="stable")]:
        mean = embeddings[clusters == label].mean(0)
        gaps = [np.linalg.norm(anchor - mean) for anchor in anchors]
        if gaps and min(gaps) < distance:
            out[clusters == label] = owners[int(np.argmin(gaps))]
        else:
            anchors.append(mean)
            owners.append(label)
    return out


@pytest.mark.parametrize("seed", range(5))
def test_clusters_join_as_in_the_published_code(seed):
    rng = np.random.default_rng(seed)
    clusters = rng.integers(12, size=400) ** 2 // 12
    embeddings = rng.normal(0, 1.2, (12, 2))[clusters] + rng.normal(0, 0.2, (400, 2))
    voxels = np.bincount(clusters, minlength=12)
    sums = np.zeros((12, 2))
    np.add.at(sums, clusters, embeddings)
    voxels[0] = 0
    table = joined_to_larger(voxels, sums, 1.0)
    np.testing.assert_array_equal(table[clusters], joined(clusters, embeddings, 1.0))


def test_what_mean_shift_splits_comes_together_again():
    """One object whose embeddings are of two kinds, farther apart than the bandwidth, and another one far away."""
    rng = np.random.default_rng(0)
    truth = np.ones((2, 30, 40), np.uint32)
    truth[:, :, 20:] = 2
    embeddings = np.zeros((3, *truth.shape), np.float32)
    embeddings[0] = np.where(truth == 1, rng.choice([-0.7, 0.7], truth.shape) + rng.normal(0, 0.1, truth.shape), 4)
    split = MeanShift(connected=False)(embeddings, truth > 0)
    assert split.max() > 2
    plus = MeanShiftPlus(connected=False)(embeddings, truth > 0)
    assert len(np.unique(np.stack([plus.ravel(), truth.ravel()]), axis=1).T) == 2
