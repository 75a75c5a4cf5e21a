from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles import components

from spoco_blocks.kernels.components import count_voxels, equal_components

shapes = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))


@settings(max_examples=60, deadline=None)
@given(shapes.flatmap(lambda s: arrays(np.int32, s, elements=st.integers(0, 2))), st.integers(1, 4))
def test_equals_flood_filling(values, min_voxels):
    labels, sizes = equal_components(values, min_voxels)
    np.testing.assert_array_equal(labels, components(values, min_voxels))
    assert labels.dtype == np.uint32
    assert sizes.dtype == np.int64
    expected = np.bincount(labels.ravel(), minlength=len(sizes))
    np.testing.assert_array_equal(sizes[1:], expected[1:])
    assert sizes[0] == 0


@pytest.mark.parametrize("dtype", [np.int32, np.uint32])
def test_equals_cc3d_on_a_larger_array(dtype):
    cc3d = pytest.importorskip("cc3d")
    values = np.random.default_rng(0).integers(0, 3, (30, 31, 32)).astype(dtype)
    labels, _ = equal_components(values)
    theirs = cc3d.connected_components(values, connectivity=6)
    pairs = np.unique(np.stack([labels.ravel(), theirs.ravel()]), axis=1)
    assert pairs.shape[1] == labels.max() + 1 == theirs.max() + 1


def test_values_that_are_not_contiguous():
    values = np.random.default_rng(1).integers(0, 3, (5, 6, 7)).astype(np.int32)
    np.testing.assert_array_equal(
        equal_components(values.transpose(2, 0, 1))[0], components(values.transpose(2, 0, 1), 1)
    )


@pytest.mark.parametrize("largest", [0, 1, 5])
def test_voxels_of_each_label_are_counted(largest):
    labels = np.random.default_rng(0).integers(0, largest + 1, (4, 6, 7)).astype(np.uint32)
    for array in (labels, labels[1:-1, 1:-1, 1:-1]):
        np.testing.assert_array_equal(count_voxels(array, 7), np.bincount(array.ravel(), minlength=7))
