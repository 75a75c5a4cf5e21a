"""The intensity range of a volume, which everything else is normalised by."""

from __future__ import annotations

import numpy as np
import pytest

from spoco_blocks.learn.intensity import Normalisation, intensity_range


def drawn(part, bright, seed=0):
    """Two channels of tissue between 80 and 120, of which a part is bright."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(80, 120, (2, 100_000))
    values[:, : round(part * values.shape[1])] = bright
    return values


def test_a_bright_speck_does_not_squeeze_the_tissue():
    low, high = intensity_range(drawn(0.005, 200.0))
    np.testing.assert_allclose(low, 80, atol=1)
    np.testing.assert_allclose(high, 120, atol=1)


def test_sparse_objects_stay_within_reach():
    values = drawn(0.005, 1080.0)
    low, high = intensity_range(values)
    np.testing.assert_allclose(high, low + (1080 - low) / 3, rtol=1e-6)
    normalised = Normalisation(tuple(low), tuple(high))(values.reshape(2, 10, 100, 100))
    assert normalised.max() == pytest.approx(11, abs=1e-3)  # where they end is not clipped
    assert np.median(normalised) < -0.5


def test_channels_have_ranges_of_their_own():
    values = drawn(0.0, 0.0)
    values[1] *= 10
    low, high = intensity_range(values)
    assert low[1] == pytest.approx(10 * low[0], rel=0.02)
    assert high[1] == pytest.approx(10 * high[0], rel=0.02)
