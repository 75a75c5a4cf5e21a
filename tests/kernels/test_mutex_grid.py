"""Mutex watershed on a grid against sets and against the one on graphs, and what it is for."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import mutex_partition
from scipy.ndimage import gaussian_filter

from spoco_blocks.kernels.mutex import mutex_clusters
from spoco_blocks.kernels.mutex_grid import mutex_watershed

OFFSETS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 3], [0, -2, 0], [2, 1, -1]])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("levels", [2, 4, 256])
def test_equals_the_oracle(seed, levels):
    rng = np.random.default_rng(seed)
    affinities = (rng.integers(levels, size=(6, 4, 6, 7)) * (255 // (levels - 1))).astype(np.uint8)
    mask = rng.random((4, 6, 7)) < 0.9
    labels = mutex_watershed(affinities, OFFSETS, 3, mask)
    np.testing.assert_array_equal(labels, mutex_partition(affinities, OFFSETS, 3, mask))
    assert labels.dtype == np.uint32


def on_a_graph(affinities, attractive, mask):
    """Give the same partition by sorting all edges and clustering the graph that they make."""
    places = np.arange(mask.size).reshape(mask.shape)
    first, second, repulsive, level = [], [], [], []
    for o, (values, offset) in enumerate(zip(affinities, OFFSETS, strict=True)):
        here = tuple(slice(max(0, -d), n - max(0, d)) for d, n in zip(offset, mask.shape, strict=True))
        there = tuple(slice(max(0, d), n + min(0, d)) for d, n in zip(offset, mask.shape, strict=True))
        both = mask[here] & mask[there]
        first.append(places[here][both])
        second.append(places[there][both])
        level.append(values[here][both].astype(int) if o >= attractive else 255 - values[here][both].astype(int))
        repulsive.append(np.full(both.sum(), o >= attractive))
    order = np.argsort(np.concatenate(level), kind="stable")
    edges = (np.concatenate(part)[order] for part in (first, second, repulsive))
    roots = mutex_clusters(*edges, mask.size)[mask.ravel()]
    return roots, np.unique(roots)


@pytest.mark.parametrize("attractive", [0, 2, 3, 6])
@pytest.mark.parametrize("sigma", [0.0, 1.5])
def test_equals_the_clustering_of_the_graph_of_all_edges(sigma, attractive):
    rng = np.random.default_rng(int(10 * sigma) + attractive)
    field = np.stack([gaussian_filter(rng.standard_normal((20, 30, 40)), sigma) for _ in OFFSETS])
    affinities = (255 * (field - field.min()) / np.ptp(field)).astype(np.uint8)
    mask = rng.random(field.shape[1:]) < 0.95
    labels = mutex_watershed(affinities, OFFSETS, attractive, mask)
    roots, kept = on_a_graph(affinities, attractive, mask)
    np.testing.assert_array_equal(labels[mask] - 1, np.searchsorted(kept, roots))


def test_a_gap_in_a_border_does_not_join_two_objects():
    affinities = np.full((4, 1, 9, 12), 250, np.uint8)
    affinities[2, :, :, 5] = 5  # a border between x = 5 and 6 ...
    affinities[2, :, 4, 5] = 200  # ... with a gap
    affinities[3, :, :, 3:6] = 10  # seen from afar, the border has none
    offsets = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 3]])
    labels = mutex_watershed(affinities, offsets, 3, np.ones((1, 9, 12), bool))
    assert (labels[:, :, :6] == 1).all()
    assert (labels[:, :, 6:] == 2).all()
    without = mutex_watershed(affinities[:3], offsets[:3], 3, np.ones((1, 9, 12), bool))
    assert without.max() == 1


def test_nothing_and_wrong_shapes():
    empty = mutex_watershed(np.zeros((6, 3, 3, 3), np.uint8), OFFSETS, 3, np.zeros((3, 3, 3), bool))
    assert not empty.any()
    one = mutex_watershed(np.zeros((6, 1, 1, 1), np.uint8), OFFSETS, 3, np.ones((1, 1, 1), bool))
    assert one.tolist() == [[[1]]]
    with pytest.raises(ValueError, match="expected affinities of shape"):
        mutex_watershed(np.zeros((5, 3, 3, 3), np.uint8), OFFSETS, 3, np.zeros((3, 3, 3), bool))
