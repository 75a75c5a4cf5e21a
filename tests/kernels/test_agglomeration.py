from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import agglomerated

from spoco_blocks.kernels.agglomeration import agglomerate

LIMITS = {"merge_distance": 1.5, "small_voxels": 4, "small_distance": 3.0}


@st.composite
def graphs(draw):
    n = draw(st.integers(2, 11))
    node = st.integers(0, n - 1)
    rows = draw(st.lists(st.tuples(node, node, st.integers(0, 3), st.booleans(), st.booleans()), max_size=30))
    voxels = draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))
    means = draw(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=n, max_size=n))
    voxels = np.array([0, *voxels[1:]])
    pairs = np.array([r[:2] for r in rows], np.int64).reshape(-1, 2)
    distinct = np.array([r[3] and r[4] for r in rows], bool)
    return pairs, np.array([r[2] for r in rows], np.int64), distinct, voxels, np.array(means) * voxels[:, None] * 1.0


@settings(max_examples=300, deadline=None)
@given(graphs(), st.integers(1, 2), st.randoms(use_true_random=False))
def test_equals_looking_at_all_pairs(graph, min_contacts, random):
    pairs, contacts, distinct, voxels, sums = graph
    roots = agglomerate(*graph, **LIMITS, min_contacts=min_contacts)
    np.testing.assert_array_equal(roots, agglomerated(*graph, **LIMITS, min_contacts=min_contacts))
    order = list(range(len(pairs)))
    random.shuffle(order)
    flipped = pairs[order][:, ::-1]
    again = agglomerate(flipped, contacts[order], distinct[order], voxels, sums, **LIMITS, min_contacts=min_contacts)
    np.testing.assert_array_equal(roots, again)
    # No cluster holds both ends of a cannot-link edge.
    low, high = pairs[distinct].T
    linked = distinct & (pairs[:, 0] != pairs[:, 1]) & (voxels[pairs] > 0).all(axis=1)
    low, high = pairs[linked].T
    assert (roots[low] != roots[high]).all()


def chain(n):
    pairs = np.stack([np.arange(1, n), np.arange(2, n + 1)], axis=1)
    return pairs, np.ones(n - 1, np.int64), np.zeros(n - 1, bool)


def test_a_chain_of_equal_fragments_becomes_one_segment():
    pairs, contacts, distinct = chain(5000)
    voxels = np.full(5001, 10)
    voxels[0] = 0
    roots = agglomerate(pairs, contacts, distinct, voxels, np.zeros((5001, 2)), **LIMITS)
    assert set(roots.tolist()) == {0, 1}


def test_a_cannot_link_edge_holds_through_a_chain():
    pairs, contacts, distinct = chain(6)
    pairs = np.concatenate([pairs, [[1, 6]]])
    roots = agglomerate(
        pairs, np.r_[contacts, 0], np.r_[distinct, True], np.r_[0, np.full(6, 10)], np.zeros((7, 1)), **LIMITS
    )
    assert roots[1] != roots[6]


def test_the_smallest_distance_goes_first_and_moves_the_mean():
    # 1 and 2 fuse first; their mean, 0.6, is then too far from 3.
    pairs, contacts, distinct = chain(3)
    sums = np.array([0, 0, 1.2, 2.5])[:, None]
    limits = {"merge_distance": 1.5, "small_voxels": 0, "small_distance": 0.0}
    assert agglomerate(pairs, contacts, distinct, np.array([0, 1, 1, 1]), sums, **limits).tolist() == [0, 1, 1, 3]


def test_a_large_random_graph_keeps_the_heap_and_lists_consistent():
    rng = np.random.default_rng(0)
    n = 120
    voxels = np.r_[0, rng.integers(1, 9, n - 1)]
    sums = rng.normal(0, 2, (n, 3)) * voxels[:, None]
    pairs = rng.integers(1, n, (500, 2))
    graph = (pairs, rng.integers(0, 3, 500), rng.random(500) < 0.05, voxels, sums)
    np.testing.assert_array_equal(agglomerate(*graph, **LIMITS), agglomerated(*graph, **LIMITS))


def test_no_edges():
    empty = np.empty((0, 2), np.int64), np.empty(0, np.int64), np.empty(0, bool)
    assert agglomerate(*empty, np.array([0, 5, 5]), np.zeros((3, 2)), **LIMITS).tolist() == [0, 1, 2]


STAR = """
from pathlib import Path
import numpy as np
from spoco_blocks.kernels.agglomeration import agglomerate
def peak_kib(n):
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that from here on, without compiling
    edges = np.stack([np.ones(n, int), np.arange(2, n + 2)], 1)
    roots = agglomerate(edges, np.ones(n, int), np.zeros(n, bool), np.full(n + 2, 10), np.zeros((n + 2, 8)),
                        merge_distance=1.0, small_voxels=100, small_distance=3.0)
    assert len(np.unique(roots[1:])) == 1
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
peak_kib(100)
small = peak_kib(100)
print((peak_kib(4000) - small) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is looked up in /proc")
def test_memory_is_not_square_where_all_is_alike():
    # Each of 4000 fusions offers all edges that are left again: 8 million entries of 32 bytes, were they kept.
    grown_mib = int(subprocess.run([sys.executable, "-c", STAR], capture_output=True, text=True, check=True).stdout)
    assert grown_mib < 20
