from __future__ import annotations

import numpy as np
import pytest
from oracles import gradients

from spoco_blocks.kernels.coreless import core_at, label_alike


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 5, 7), (3, 1, 4), (1, 1, 1)])
def test_gradients_equal_those_of_the_whole_array(shape, dtype):
    embeddings = np.random.default_rng(0).standard_normal((5, *shape)).astype(dtype)
    places = np.arange(0, np.prod(shape), 2)
    expected = gradients(embeddings).reshape(-1)[places]
    for threshold in np.unique(expected)[[0, len(np.unique(expected)) // 2, -1]] + 1e-4:
        np.testing.assert_array_equal(core_at(embeddings, places, threshold), expected < threshold)


def flooded(vectors, listed, bound, min_voxels):
    """Components of listed voxels by flood filling: neighbours belong together whose vectors are near."""
    found, count = np.zeros(listed.shape, int), 0
    for start in np.argwhere(listed):
        if found[tuple(start)]:
            continue
        waiting, members = [tuple(start)], {tuple(start)}
        while waiting:
            here = waiting.pop()
            for axis in range(3):
                for step in (-1, 1):
                    there = tuple(p + step * (a == axis) for a, p in enumerate(here))
                    inside = all(0 <= p < extent for p, extent in zip(there, listed.shape, strict=True))
                    if not inside or there in members or not listed[there]:
                        continue
                    if np.linalg.norm(vectors[there] - vectors[here]) <= bound:
                        members.add(there)
                        waiting.append(there)
        count += len(members) >= min_voxels
        for member in members:
            found[member] = count if len(members) >= min_voxels else -1
    return np.maximum(found, 0)


@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 9, 7), (5, 1, 8), (3, 6, 1)])
@pytest.mark.parametrize("min_voxels", [0, 3])
def test_components_equal_flood_filling(shape, min_voxels):
    rng = np.random.default_rng(1)
    modes = np.array([[9, 9], [0, 0], [3, 0], [0, 3]], np.float32)
    for _ in range(5):
        listed = rng.random(shape) < 0.9
        vectors = (modes[rng.integers(0, 4, shape)] + rng.normal(0, 0.6, (*shape, 2))).astype(np.float32)
        labels, means = label_alike(np.flatnonzero(listed), vectors[listed], shape, 1.5, min_voxels)
        expected = flooded(vectors, listed, 1.5, max(1, min_voxels))
        np.testing.assert_array_equal(labels, expected[listed])
        for label in range(1, expected.max() + 1):
            np.testing.assert_allclose(means[label], vectors[expected == label].mean(0), atol=1e-5)
