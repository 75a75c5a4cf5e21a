from __future__ import annotations

import numpy as np
import pytest
from oracles import components, gradients

from spoco_blocks.kernels.coreless import gradients_at, label_places


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 5, 7), (3, 1, 4), (1, 1, 1)])
def test_gradients_equal_those_of_the_whole_array(shape, dtype):
    embeddings = np.random.default_rng(0).standard_normal((5, *shape)).astype(dtype)
    places = np.arange(0, np.prod(shape), 2)
    np.testing.assert_allclose(
        gradients_at(embeddings, places), gradients(embeddings).reshape(-1)[places], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 9, 7), (5, 1, 8), (3, 6, 1)])
@pytest.mark.parametrize("min_voxels", [0, 3])
def test_components_equal_flood_filling(shape, min_voxels):
    rng = np.random.default_rng(1)
    modes = np.array([[0, 0], [3, 0], [0, 3]], np.float32)
    for _ in range(5):
        values = rng.integers(0, 4, shape)
        listed = rng.random(shape) < 0.9
        vectors = np.concatenate([[[9, 9]], modes])[values] + rng.normal(0, 0.1, (*shape, 2))
        labels, means = label_places(
            np.flatnonzero(listed), vectors[listed].astype(np.float32), shape, modes, 1.0, min_voxels
        )
        expected = components(np.where(listed, values, 0), max(1, min_voxels))
        np.testing.assert_array_equal(labels, expected[listed])
        for label in range(1, expected.max() + 1):
            np.testing.assert_allclose(means[label], vectors[expected == label].mean(0), atol=1e-5)
