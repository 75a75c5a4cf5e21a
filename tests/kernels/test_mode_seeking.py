from __future__ import annotations

import numpy as np
import pytest

from spoco_blocks.kernels import mode_seeking
from spoco_blocks.kernels.mode_seeking import nearest_modes, seek_modes


def blobs(n, k, c, seed, spread=6.0, noise=0.15):
    rng = np.random.default_rng(seed)
    centres = rng.uniform(-spread, spread, (k, c))
    samples = centres[rng.integers(0, k, n)] + rng.normal(0, noise, (n, c))
    return centres, samples.astype(np.float32)


def test_finds_the_centres_of_blobs():
    centres, samples = blobs(3000, 25, 8, seed=0)
    modes, counts = seek_modes(samples, 1.0, 10, 1.0)
    assert modes.shape == (25, 8)
    assert modes.dtype == np.float32
    assert counts.sum() == 3000
    assert list(counts) == sorted(counts, reverse=True)
    distances = np.linalg.norm(modes[:, None] - centres[None], axis=2)
    assert (distances.min(axis=1) < 0.1).all()
    assert len(set(distances.argmin(axis=1))) == 25


def test_modes_are_fixed_points_of_the_flat_kernel():
    rng = np.random.default_rng(3)
    samples = rng.normal(0, 1.5, (600, 3)).astype(np.float32)
    modes, counts = seek_modes(samples, 1.0, 5, 0.5, max_iterations=200)
    assert len(modes) > 3
    for mode, count in zip(modes, counts, strict=True):
        inside = np.linalg.norm(samples - mode, axis=1) <= 1.0
        # A search stops when it moves less than a hundredth of the bandwidth: a sample may still cross the rim.
        assert abs(int(inside.sum()) - count) <= 3
        assert np.linalg.norm(samples[inside].mean(axis=0) - mode) < 0.05
    apart = np.linalg.norm(modes[:, None] - modes[None], axis=2)
    assert (apart[~np.eye(len(modes), dtype=bool)] >= 0.5).all()


def test_small_modes_are_dropped_and_no_samples_give_no_modes():
    _, samples = blobs(300, 3, 4, seed=1)
    stray = np.full((4, 4), 40.0, np.float32)
    assert len(seek_modes(np.concatenate([stray, samples]), 1.0, 10, 1.0)[0]) == 3
    modes, counts = seek_modes(np.empty((0, 4), np.float32), 1.0, 10, 1.0)
    assert modes.shape == (0, 4)
    assert counts.shape == (0,)


def test_more_modes_than_one_table_holds():
    centres = np.stack(np.meshgrid(*[np.arange(18.0) * 4] * 3), -1).reshape(-1, 3)
    rng = np.random.default_rng(0)
    samples = rng.permutation(np.repeat(centres, 3, axis=0)).astype(np.float32)
    assert len(seek_modes(samples, 1.0, 3, 1.0)[0]) == len(centres) == 5832


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("k", [1, 2, 40])
def test_nearest_equals_brute_force(k, dtype, monkeypatch):
    rng = np.random.default_rng(k)
    modes = rng.normal(0, 2, (k, 6)).astype(np.float32)
    embeddings = rng.normal(0, 2, (6, 3, 10, 11)).astype(dtype)
    mask = rng.random((3, 10, 11)) < 0.6
    squared = ((embeddings.astype(np.float64)[None] - modes[:, :, None, None, None]) ** 2).sum(1)
    expected = squared.argmin(0) + 1
    expected[squared.min(0) > 3.0**2] = k + 1
    expected[~mask] = 0
    for width in (256, 8, 3):
        monkeypatch.setattr(mode_seeking, "NEIGHBOURS", width)
        nearest = nearest_modes(embeddings, mask, modes, 3.0)
        assert nearest.dtype == np.int32
        np.testing.assert_array_equal(nearest, expected)


def test_equally_near_modes_and_no_modes():
    modes = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)
    embeddings = np.zeros((2, 1, 1, 3), np.float32)
    assert (nearest_modes(embeddings, np.ones((1, 1, 3), bool), modes) == 1).all()
    none = nearest_modes(embeddings, np.array([[[True, False, True]]]), np.empty((0, 2), np.float32))
    assert none.tolist() == [[[1, 0, 1]]]
