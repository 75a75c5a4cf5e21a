from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spoco_blocks.errors import GridError
from spoco_blocks.kernels.downsample import downsample_mean, downsample_mode

shapes = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7)
factors = st.tuples(*[st.integers(1, 4)] * 3)


def windows(array, factor):
    shape = [-(-s // f) for s, f in zip(array.shape, factor, strict=True)]
    for place in product(*map(range, shape)):
        yield place, array[tuple(slice(p * f, p * f + f) for p, f in zip(place, factor, strict=True))]


def slow_mode(labels, factor):
    out = np.zeros([-(-s // f) for s, f in zip(labels.shape, factor, strict=True)], labels.dtype)
    for place, window in windows(labels, factor):
        counts = Counter(window.ravel().tolist())
        out[place] = min(counts, key=lambda label: (-counts[label], label == 0, label))
    return out


def slow_mean(array, factor):
    out = np.zeros([-(-s // f) for s, f in zip(array.shape, factor, strict=True)])
    for place, window in windows(array, factor):
        out[place] = np.mean(window, dtype=np.float64)
    return out


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8"])
@given(data=st.data(), factor=factors)
@settings(max_examples=40, deadline=None)
def test_mode_is_the_most_frequent_label(dtype, data, factor):
    labels = data.draw(hnp.arrays(dtype, shapes, elements=st.integers(0, 4)))
    result = downsample_mode(labels, factor)
    assert result.dtype == labels.dtype
    np.testing.assert_array_equal(result, slow_mode(labels, factor))


def test_mode_keeps_ids_beyond_float_precision():
    labels = np.full((2, 2, 2), 2**63 + 1, np.uint64)
    assert downsample_mode(labels, (2, 2, 2)).item() == 2**63 + 1


def test_mode_ties_prefer_objects_then_smaller_ids():
    assert downsample_mode(np.array([[[0, 0, 9, 9]]], np.uint32), (1, 1, 4)).item() == 9
    assert downsample_mode(np.array([[[9, 0, 5, 5, 0, 9]]], np.uint32), (1, 1, 6)).item() == 5
    assert downsample_mode(np.array([[[0, 0, 0, 5, 5, 9]]], np.uint32), (1, 1, 6)).item() == 0


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4"])
@given(data=st.data(), factor=factors)
@settings(max_examples=40, deadline=None)
def test_integer_mean_is_rounded(dtype, data, factor):
    array = data.draw(hnp.arrays(dtype, shapes))
    result = downsample_mean(array, factor)
    assert result.dtype == array.dtype
    np.testing.assert_array_equal(result, np.rint(slow_mean(array, factor)).astype(dtype))


@pytest.mark.parametrize(("dtype", "tolerance"), [("f2", 1e-3), ("f4", 1e-6), ("f8", 1e-12)])
@given(data=st.data(), factor=factors)
@settings(max_examples=40, deadline=None)
def test_float_mean(dtype, tolerance, data, factor):
    width = {"f2": 16, "f4": 32, "f8": 64}[dtype]
    array = data.draw(hnp.arrays(dtype, shapes, elements=st.floats(-100, 100, width=width)))
    result = downsample_mean(array, factor)
    assert result.dtype == array.dtype
    np.testing.assert_allclose(result, slow_mean(array, factor), rtol=tolerance, atol=tolerance * 100)


def test_mean_reads_strided_views():
    array = np.arange(8 * 6 * 4, dtype=np.float32).reshape(8, 6, 4)[::2, ::-1].transpose(2, 1, 0)
    np.testing.assert_allclose(downsample_mean(array, (2, 3, 4)), slow_mean(array, (2, 3, 4)))


@pytest.mark.parametrize("kernel", [downsample_mean, downsample_mode])
@pytest.mark.parametrize(("shape", "factor"), [((4, 4), (1, 2, 2)), ((4, 4, 4), (0, 2, 2)), ((4, 4, 4), (2, 2))])
def test_bad_shapes_are_refused(kernel, shape, factor):
    with pytest.raises(GridError, match="downsampling needs"):
        kernel(np.zeros(shape, np.uint8), factor)


@pytest.mark.parametrize("dtype", ["i4", "f4"])
def test_mode_refuses_other_types_than_ids(dtype):
    with pytest.raises(GridError, match="unsigned"):
        downsample_mode(np.zeros((2, 2, 2), dtype), (2, 2, 2))


@pytest.mark.parametrize("dtype", ["u1", "u2", "f2", "f4"])
def test_channels_stay_apart(dtype):
    array = (np.random.default_rng(0).random((3, 5, 7, 6)) * 200).astype(dtype)
    result = downsample_mean(array, (2, 3, 1))
    assert result.shape == (3, 3, 3, 6)
    for channel, coarse in zip(array, result, strict=True):
        np.testing.assert_array_equal(coarse, downsample_mean(channel, (2, 3, 1)))
