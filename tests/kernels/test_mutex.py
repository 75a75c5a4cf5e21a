"""Mutex watershed on a graph; `test_mutex_grid` holds it against sets."""

from __future__ import annotations

import numpy as np

from spoco_blocks.kernels.mutex import mutex_clusters


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


def test_no_edges():
    assert mutex_clusters(np.zeros(0, int), np.zeros(0, int), np.zeros(0, bool), 3).tolist() == [0, 1, 2]
