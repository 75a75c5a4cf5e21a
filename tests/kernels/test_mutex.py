"""Mutex watershed against sets, and what it is for."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import mutex_partition

from spoco_blocks.kernels.mutex import mutex_clusters, mutex_watershed

OFFSETS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 3], [0, -2, 0], [2, 1, -1]])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("levels", [4, 256])
def test_equals_the_oracle(seed, levels):
    rng = np.random.default_rng(seed)
    affinities = (rng.integers(levels, size=(6, 4, 6, 7)) * (255 // (levels - 1))).astype(np.uint8)
    mask = rng.random((4, 6, 7)) < 0.9
    labels = mutex_watershed(affinities, OFFSETS, 3, mask)
    np.testing.assert_array_equal(labels, mutex_partition(affinities, OFFSETS, 3, mask))
    assert labels.dtype == np.uint32


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


def test_many_exclusions_survive_when_the_set_grows():
    n = 3000
    hub = np.zeros(n - 1, np.int64)
    rest = np.arange(1, n)
    first = np.concatenate([hub, rest[:-1], hub])
    second = np.concatenate([rest, rest[1:], rest])
    repulsive = np.concatenate([np.ones(n - 1, bool), np.zeros(n - 2, bool), np.zeros(n - 1, bool)])
    roots = mutex_clusters(first, second, repulsive, n)
    assert roots[0] == 0
    assert (roots[1:] == 1).all()


def test_nothing_and_wrong_shapes():
    empty = mutex_watershed(np.zeros((6, 3, 3, 3), np.uint8), OFFSETS, 3, np.zeros((3, 3, 3), bool))
    assert not empty.any()
    assert mutex_clusters(np.zeros(0, int), np.zeros(0, int), np.zeros(0, bool), 3).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="expected affinities of shape"):
        mutex_watershed(np.zeros((5, 3, 3, 3), np.uint8), OFFSETS, 3, np.zeros((3, 3, 3), bool))
