"""HDBSCAN* on the grid against the hdbscan package, which is given the same graph as a sparse matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hdbscan import HDBSCAN
from scipy.ndimage import gaussian_filter
from scipy.sparse import lil_matrix

from spoco_blocks.kernels.grid_hdbscan import grid_hdbscan

OUTER = 4.0


def two_boxes(seed, sigma, shape=(4, 9, 22)):
    """Smooth random embeddings in two boxes with a plane between them."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((3, *shape))
    smooth = np.stack([gaussian_filter(channel, sigma) for channel in noise])
    mask = np.ones(shape, bool)
    mask[:, :, 13] = False
    return (smooth / smooth.std() + 0.05 * noise).astype(np.float32), mask


def by_the_package(embeddings, mask, settings):
    """Cluster the grid graph; one edge of the outer distance joins the two boxes, as ours does without an edge."""
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(mask.sum())
    graph = lil_matrix((mask.sum(), mask.sum()))
    for axis in range(3):
        here, there = np.moveaxis(number, axis, 0)[:-1], np.moveaxis(number, axis, 0)[1:]
        values = np.moveaxis(embeddings, axis + 1, 1)
        gaps = np.linalg.norm(values[:, :-1].astype(float) - values[:, 1:], axis=0)
        for i, j, gap in zip(here.ravel(), there.ravel(), gaps.ravel(), strict=True):
            if i >= 0 and j >= 0:
                graph[i, j] = graph[j, i] = gap
    a, b = number[0, 0, 0], number[0, 0, -1]
    graph[a, b] = graph[b, a] = OUTER
    return HDBSCAN(metric="precomputed", **settings).fit_predict(graph.tocsr())


@pytest.mark.parametrize("least", [5, 20, 60])
@pytest.mark.parametrize("min_samples", [1, 3])
@pytest.mark.parametrize(("seed", "sigma"), [(0, 1.0), (1, 2.0), (2, 0.5)])
@pytest.mark.parametrize("epsilon", [0.0, 0.25])
def test_equals_the_package(least, min_samples, seed, sigma, epsilon):
    embeddings, mask = two_boxes(seed, sigma)
    labels = grid_hdbscan(
        embeddings, mask, min_cluster_size=least, min_samples=min_samples, epsilon=epsilon, outer_distance=OUTER
    )
    settings = {"min_cluster_size": least, "min_samples": min_samples, "cluster_selection_epsilon": epsilon}
    expected = by_the_package(embeddings, mask, settings) + 1
    assert expected.max() >= 2
    assert not labels[~mask].any()
    pairs = np.unique(np.stack([labels[mask], expected]), axis=1)
    assert pairs.shape[1] == len(np.unique(expected)) == len(np.unique(labels[mask]))
    np.testing.assert_array_equal(labels[mask] > 0, expected > 0)


def test_components_that_are_not_linked_are_clusters_or_noise():
    embeddings, mask = np.zeros((2, 1, 4, 9), np.float16), np.ones((1, 4, 9), bool)
    mask[..., 4], mask[..., 6] = False, False
    embeddings[0, ..., 7:] = 9
    settings = {"min_samples": 2, "epsilon": 0.0, "outer_distance": OUTER}
    labels = grid_hdbscan(embeddings, mask, min_cluster_size=8, **settings)
    assert sorted(np.bincount(labels.ravel()).tolist()) == [8, 12, 16]
    assert not labels[..., 5].any()
    assert not grid_hdbscan(embeddings, np.zeros_like(mask), min_cluster_size=8, **settings).any()
