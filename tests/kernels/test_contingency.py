from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spoco_blocks.errors import VolumeError
from spoco_blocks.kernels.contingency import contingency, merge_tables

LABELS = st.sampled_from([np.uint32, np.uint64])
SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=7)


@st.composite
def label_pairs(draw):
    shape = draw(SHAPES)
    arrays = []
    for _ in range(2):
        dtype = draw(LABELS)
        top = np.iinfo(dtype).max
        arrays.append(draw(hnp.arrays(dtype, shape, elements=st.sampled_from([0, 1, 2, 3, int(top) - 1, int(top)]))))
    return arrays


def counted(truth, segments):
    return Counter(zip(truth.ravel().tolist(), segments.ravel().tolist(), strict=True))


def as_counter(pairs, counts):
    return {tuple(pair): count for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True)}


@given(label_pairs())
@settings(max_examples=80, deadline=None)
def test_counts_every_pair_of_labels(labels):
    truth, segments = labels
    pairs, counts = contingency(truth, segments)
    assert pairs.dtype == np.uint64
    assert counts.dtype == np.int64
    assert as_counter(pairs, counts) == counted(truth, segments)
    assert pairs.tolist() == sorted(pairs.tolist())


@given(label_pairs(), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_tables_of_pieces_add_up(labels, pieces):
    truth, segments = (a.ravel() for a in labels)
    parts = zip(np.array_split(truth, pieces), np.array_split(segments, pieces), strict=True)
    pairs, counts = merge_tables([contingency(a, b) for a, b in parts])
    whole = contingency(truth, segments)
    np.testing.assert_array_equal(pairs, whole[0])
    np.testing.assert_array_equal(counts, whole[1])


def test_the_hash_table_grows():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 300, 40_000).astype(np.uint64) << np.uint64(32)
    segments = rng.integers(0, 300, 40_000).astype(np.uint32)
    assert as_counter(*contingency(truth, segments)) == counted(truth, segments)


def test_runs_longer_than_what_is_read_at_once():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 20).astype(np.uint32).repeat(rng.integers(1, 9_000, 20))
    segments = rng.integers(0, 3, truth.size // 7_000 + 1).astype(np.uint64).repeat(7_000)[: truth.size]
    assert as_counter(*contingency(truth, segments)) == counted(truth, segments)


def test_reads_views_and_other_integers():
    truth = np.arange(24, dtype=np.int64).reshape(2, 3, 4)[:, ::2, ::-1]
    segments = np.ones_like(truth, dtype=np.uint8)
    assert as_counter(*contingency(truth, segments)) == counted(truth, segments)


def test_no_tables_make_an_empty_table():
    pairs, counts = merge_tables([])
    assert pairs.shape == (0, 2)
    assert counts.shape == (0,)


@pytest.mark.parametrize("truth", [np.zeros(3, np.uint32), np.zeros(2, np.float32), np.array([-1, 0])])
def test_refuses_what_are_not_labels_of_the_same_box(truth):
    with pytest.raises(VolumeError):
        contingency(truth, np.zeros(2, np.uint32))
