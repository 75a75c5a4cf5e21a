from __future__ import annotations

import numpy as np
import oracles
import pytest

from spoco_blocks.kernels.contacts import contacts, contacts_at
from spoco_blocks.kernels.faces import face_contacts
from spoco_blocks.kernels.lookup import apply_lookup
from spoco_blocks.kernels.regions import region_statistics


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(4, 6, 7), (1, 6, 9)])
def test_statistics_equal_masks(shape, dtype):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, shape).astype(np.uint32)
    embeddings = rng.standard_normal((3, *shape)).astype(dtype)
    voxels, sums, start, stop, positions = region_statistics(labels, embeddings, 7)
    assert sums.shape == (8, 3)
    assert not voxels[[0, 6, 7]].any()
    assert not sums[[0, 6, 7]].any()
    assert not start[[0, 6, 7]].any()
    assert not stop[[0, 6, 7]].any()
    for label in range(1, 6):
        places = np.argwhere(labels == label)
        assert voxels[label] == len(places)
        np.testing.assert_allclose(sums[label], embeddings[:, labels == label].astype(np.float64).sum(1), atol=1e-9)
        np.testing.assert_array_equal(start[label], places.min(0))
        np.testing.assert_array_equal(stop[label], places.max(0) + 1)
        np.testing.assert_array_equal(positions[label], places.sum(0))


def test_sums_of_the_parts_are_the_sum_of_the_whole():
    rng = np.random.default_rng(1)
    embeddings = (rng.standard_normal((4, 6, 20, 20)) * 8).astype(np.float16)
    labels = np.ones((6, 20, 20), np.uint32)
    whole = region_statistics(labels, embeddings, 1)[1]
    parts = [region_statistics(labels[..., s], embeddings[..., s], 1)[1] for s in (slice(0, 7), slice(7, 20))]
    np.testing.assert_array_equal(whole, parts[0] + parts[1])


@pytest.mark.parametrize(("shape", "largest"), [((4, 6, 7), 5), ((1, 6, 9), 5), ((12, 13, 14), 3000), ((3, 3, 1), 2)])
def test_contacts_equal_a_dictionary(shape, largest):
    labels = np.random.default_rng(0).integers(0, largest + 1, shape).astype(np.uint32)
    pairs, counts = contacts(labels)
    expected = oracles.contacts(labels)
    assert pairs.dtype == np.uint32
    assert [tuple(p) for p in pairs.tolist()] == sorted(expected)
    assert counts.tolist() == [expected[p] for p in sorted(expected)]


def test_contacts_of_labels_beyond_31_bits_and_of_none():
    labels = np.array([[[4_000_000_000, 4_100_000_000, 7]]], np.uint32)
    assert contacts(labels)[0].tolist() == [[7, 4_100_000_000], [4_000_000_000, 4_100_000_000]]
    pairs, counts = contacts(np.zeros((2, 2, 2), np.uint32))
    assert pairs.shape == (0, 2)
    assert counts.shape == (0,)


def test_face_contacts_equal_a_dictionary():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (2, 20, 21)).astype(np.uint32)
    b[b == 4] = 4_000_000_000
    pairs, counts = face_contacts(a, b)
    expected = {}
    for p, q in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True):
        if p and q:
            expected[p, q] = expected.get((p, q), 0) + 1
    assert [tuple(p) for p in pairs.tolist()] == sorted(expected)
    assert counts.tolist() == [expected[p] for p in sorted(expected)]
    with pytest.raises(ValueError, match="one shape"):
        face_contacts(a, b[:-1])


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64, np.float32])
def test_lookup_equals_indexing(dtype):
    labels = np.random.default_rng(0).integers(0, 9, (3, 4, 5)).astype(np.uint32)
    table = (np.arange(9) * 3).astype(dtype)
    out = apply_lookup(labels, table)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, table[labels])
    with pytest.raises(IndexError, match="no entry"):
        apply_lookup(labels, table[:8])


@pytest.mark.parametrize(("first", "even"), [(1, None), (2, None), (40, None), (61, None), (0, 0), (0, 1)])
def test_contacts_at_some_voxels_are_those_of_their_labels(first, even):
    rng = np.random.default_rng(first)
    labels = rng.integers(0, 60, (9, 10, 11)).astype(np.uint32)
    padded = np.pad(labels, 1)
    pairs, counts = contacts(labels)
    chosen = np.arange(60) >= first if even is None else np.arange(60) % 2 == even
    listed = chosen[pairs].any(1)
    found = contacts_at(padded, np.flatnonzero(chosen[padded] & (padded > 0)), chosen)
    np.testing.assert_array_equal(found[0], pairs[listed])
    np.testing.assert_array_equal(found[1], counts[listed])
