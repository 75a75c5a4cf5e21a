from __future__ import annotations

import numpy as np
import pytest
from oracles import gradients

from spoco_blocks.kernels.gradient import core_mask, gradient_magnitudes


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 5, 7), (3, 1, 4), (3, 4, 1), (1, 1, 1), (2, 2, 2), (1, 1, 40)])
def test_equals_clamped_differences(shape, dtype):
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((5, *shape)).astype(dtype)
    foreground = rng.random(shape) < 0.7
    expected = gradients(embeddings)
    values = gradient_magnitudes(embeddings, foreground, every=1)
    np.testing.assert_allclose(values, expected[foreground], rtol=1e-5)
    threshold = 3.3
    mask = core_mask(embeddings, foreground, threshold)
    np.testing.assert_array_equal(mask, foreground & (expected < threshold))


def test_some_rows_are_looked_at():
    rng = np.random.default_rng(1)
    embeddings = rng.standard_normal((2, 5, 9, 4)).astype(np.float32)
    foreground = np.ones((5, 9, 4), bool)
    rows = np.add.outer(np.arange(5), np.arange(9)) % 3 == 0
    np.testing.assert_allclose(
        gradient_magnitudes(embeddings, foreground, every=3), gradients(embeddings)[rows].ravel(), rtol=1e-5
    )


def test_a_voxel_has_one_gradient_wherever_its_block_starts():
    rng = np.random.default_rng(2)
    embeddings = rng.standard_normal((16, 3, 3, 70)).astype(np.float16)
    whole = gradient_magnitudes(embeddings, np.ones((3, 3, 70), bool), every=1).reshape(3, 3, 70)
    for start in range(1, 9):
        part = gradient_magnitudes(embeddings[..., start:], np.ones((3, 3, 70 - start), bool), every=1)
        np.testing.assert_array_equal(part.reshape(3, 3, -1)[..., 1:], whole[..., start + 1 :])
