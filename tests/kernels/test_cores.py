from __future__ import annotations

import numpy as np
import pytest

from spoco_blocks.kernels.components import equal_components
from spoco_blocks.kernels.cores import label_cores
from spoco_blocks.kernels.gradient import core_mask
from spoco_blocks.kernels.mode_seeking import nearest_modes
from spoco_blocks.kernels.regions import region_statistics

SHAPES = [(5, 9, 10), (1, 12, 9), (4, 1, 30), (6, 7, 1), (3, 40, 200)]


def without_a_mode(values, embeddings, k, reach):
    """Name voxels that have none by the first of the last eight that is within 1.5 times the reach."""
    kept, count = [None] * 8, 0
    for place in np.argwhere(values == k + 1):
        vector = embeddings[(slice(None), *place)].astype(np.float64)
        name = next((n for e, n in filter(None, kept) if ((vector - e) ** 2).sum() <= (1.5 * reach) ** 2), 0)
        if name == 0:
            kept[count % 8] = (vector, count + 1)
            count += 1
            name = count
        values[tuple(place)] = k + name
    return values


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("k", [0, 1, 7])
@pytest.mark.parametrize("step", [(1, 1, 1), (2, 2, 2), (1, 2, 2)])
def test_equals_one_step_after_the_other(shape, k, dtype, step):
    rng = np.random.default_rng(k)
    modes = rng.normal(0, 2, (k, 3)).astype(np.float32)
    embeddings = rng.normal(0, 1, (3, *shape)).astype(dtype)
    foreground = rng.random(shape) < 0.8
    least = 2 if step == (1, 1, 1) else 1
    labels, sizes, sums = label_cores(embeddings, foreground, 3.0, modes, 2.0, least, step)
    nearest = nearest_modes(embeddings, core_mask(embeddings, foreground, 3.0), modes, 2.0)
    lattice = tuple(slice(None, None, s) for s in step)
    nearest = without_a_mode(nearest[lattice].copy(), embeddings[:, *lattice], k, 2.0)
    expected, voxels = equal_components(nearest, least)
    assert len(voxels) > 1
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(sizes, voxels)
    vectors = np.ascontiguousarray(embeddings[:, *lattice])
    np.testing.assert_allclose(sums, region_statistics(expected, vectors, len(voxels) - 1)[1], atol=1e-9)


def test_strips_do_not_show():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(0, 1, (4, 5, 23, 11)).astype(np.float16)
    foreground = rng.random((5, 23, 11)) < 0.9
    modes = rng.normal(0, 1, (5, 4)).astype(np.float32)
    whole = label_cores(embeddings, foreground, 3.5, modes, 2.0)
    moved = np.moveaxis(np.ascontiguousarray(np.moveaxis(embeddings, 0, -1)), -1, 0)
    wide = np.zeros((4, 5, 23, 20), np.float16)
    wide[..., 4:15] = embeddings
    for other in (moved, wide[..., 4:15]):
        again = label_cores(other, foreground, 3.5, modes, 2.0)
        for first, second in zip(whole, again, strict=True):
            np.testing.assert_array_equal(first, second)


def test_an_empty_foreground_has_no_cores():
    labels, sizes, sums = label_cores(
        np.ones((2, 3, 4, 5), np.float16), np.zeros((3, 4, 5), bool), 1.0, np.zeros((1, 2)), 1
    )
    assert not labels.any()
    assert sizes.tolist() == [0]
    assert sums.tolist() == [[0.0, 0.0]]
