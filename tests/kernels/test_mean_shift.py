"""Mean shift against scikit-learn's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.cluster import MeanShift
from threadpoolctl import threadpool_limits

from spoco_blocks.kernels.mean_shift import mean_shift


def blobs(seed, channels, count, spread, step):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((8, channels)) * step
    return (centres[rng.integers(8, size=count)] + rng.standard_normal((count, channels)) * spread).astype(np.float32)


def reference(samples, bandwidth, least):
    # Sums in double precision, as ours are.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", UserWarning)
        return MeanShift(bandwidth=bandwidth, bin_seeding=True, min_bin_freq=least).fit(samples.astype(np.float64))


@pytest.mark.parametrize(
    ("seed", "channels", "count", "spread", "step", "bandwidth", "least"),
    [
        (0, 2, 400, 0.2, 2.0, 0.5, 1),
        (1, 3, 500, 0.3, 1.0, 0.7, 5),
        (2, 8, 600, 0.15, 1.5, 0.5, 1),
        (3, 2, 500, 1.0, 0.5, 0.5, 3),
        (4, 3, 40, 5.0, 0.1, 0.5, 1),
        (5, 1, 300, 1.0, 1.0, 0.3, 2),
    ],
)
def test_equals_scikit_learn(seed, channels, count, spread, step, bandwidth, least):
    samples = blobs(seed, channels, count, spread, step)
    expected = reference(samples, bandwidth, least)
    centres = mean_shift(samples, bandwidth, least)
    assert centres.dtype == np.float32
    np.testing.assert_allclose(centres, expected.cluster_centers_, atol=1e-4)
    nearest = np.argmin(((samples[:, None] - centres) ** 2).sum(-1), axis=1)
    np.testing.assert_array_equal(nearest, expected.labels_)


def test_cells_with_too_few_samples_start_a_search_where_all_are_such():
    samples = np.array([[0, 0], [3, 0], [3.1, 0]], np.float32)
    np.testing.assert_allclose(mean_shift(samples, 0.5, 5), [[3.05, 0], [0, 0]], atol=1e-6)


def test_none_one_and_equal_samples():
    assert mean_shift(np.empty((0, 3), np.float32), 0.5).shape == (0, 3)
    np.testing.assert_array_equal(mean_shift(np.ones((1, 3), np.float32), 0.5), np.ones((1, 3)))
    np.testing.assert_array_equal(mean_shift(np.ones((9, 3), np.float32), 0.5), np.ones((1, 3)))
