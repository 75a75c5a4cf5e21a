from __future__ import annotations

import numpy as np
import pytest
from oracles import straightened

from spoco_blocks.kernels.borders import refine_borders
from spoco_blocks.kernels.distance import UNKNOWN, DistanceBounds


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(
    ("shape", "sweeps", "evenness"), [((4, 8, 9), 1, 0.0), ((1, 12, 9), 4, 0.1), ((6, 7, 5), 3, 0.03)]
)
def test_equals_voxel_by_voxel(shape, sweeps, evenness, dtype):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        embeddings = rng.normal(0, 1, (3, *shape)).astype(dtype)
        means = rng.normal(0, 1, (5, 3)).astype(np.float32)
        labels = rng.integers(0, 5, shape).astype(np.uint32)
        padded = np.pad(labels, 1)
        refine_borders(padded, embeddings, means, sweeps, evenness)
        expected = straightened(labels, embeddings, means, sweeps, evenness)
        assert (expected != labels).any()
        np.testing.assert_array_equal(padded, np.pad(expected, 1))


def test_many_borders_and_none():
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 5, (20, 30, 40)).astype(np.uint32)
    embeddings, means = rng.normal(0, 1, (2, 20, 30, 40)).astype(np.float32), rng.normal(0, 1, (5, 2))
    padded = np.pad(labels, 1)
    refine_borders(padded, embeddings, means, 1)
    np.testing.assert_array_equal(padded[1:-1, 1:-1, 1:-1], straightened(labels, embeddings, means, 1, 0.03))
    one = np.pad(np.ones_like(labels), 1)
    refine_borders(one, embeddings, means, 4)
    np.testing.assert_array_equal(one, np.pad(np.ones_like(labels), 1))


def test_noise_half_way_between_two_objects_is_straightened():
    rng = np.random.default_rng(0)
    means = np.array([[0.0], [-1.0], [1.0]])
    depth = np.arange(40)[None, None] - 19.5
    embeddings = np.clip(depth / 2 + rng.normal(0, 0.5, (30, 30, 40)), -1, 1)[None].astype(np.float32)
    truth = np.broadcast_to(np.where(depth < 0, 1, 2), (30, 30, 40))
    wrong = []
    for evenness in (0.0, 0.1):
        padded = np.pad(truth.astype(np.uint32), 1)
        refine_borders(padded, embeddings, means, 4, evenness)
        wrong.append((padded[1:-1, 1:-1, 1:-1] != truth).sum())
    assert wrong[1] < 0.6 * wrong[0]


def test_only_what_changed_is_looked_at_again():
    rng = np.random.default_rng(0)
    means = rng.normal(0, 1, (5, 2))
    embeddings = rng.normal(0, 1, (2, 12, 13, 14)).astype(np.float32)
    padded = np.pad(rng.integers(0, 5, (12, 13, 14)).astype(np.uint32), 1)
    refine_borders(padded, embeddings, means, 50)
    before = padded.copy()
    refine_borders(padded, embeddings, means, 2, changed=np.empty(0, np.int64))
    np.testing.assert_array_equal(padded, before)
    changed = rng.choice(np.flatnonzero(before), 40, replace=False)
    padded.reshape(-1)[changed] = rng.integers(1, 5, 40)
    before[:] = padded
    refine_borders(padded, embeddings, means, 4, changed=changed)
    refine_borders(before, embeddings, means, 4)
    np.testing.assert_array_equal(padded, before)


def bounds_of(padded, embeddings, means, unit, moved):
    """Give distance bounds as tight as they can be, to means that have since moved to where they are."""
    rng = np.random.default_rng(1)
    labels = padded[1:-1, 1:-1, 1:-1]
    steps = rng.normal(0, 1, means.shape)
    steps *= moved * rng.random((len(means), 1)) / np.linalg.norm(steps, axis=1, keepdims=True)
    old = means + steps
    distances = np.linalg.norm(embeddings - old[labels].transpose(3, 0, 1, 2), axis=0)
    units = np.full(padded.shape, UNKNOWN)
    units[1:-1, 1:-1, 1:-1] = np.minimum(np.ceil(distances / unit), UNKNOWN)
    units[rng.random(units.shape) < 0.1] = UNKNOWN
    return DistanceBounds(units, unit, np.linalg.norm(steps, axis=1))


@pytest.mark.parametrize(("unit", "moved", "evenness"), [(0.01, 0.0, 0.03), (0.05, 0.4, 0.03), (0.02, 0.1, 0.4)])
def test_bounds_change_nothing(unit, moved, evenness):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        means = rng.normal(0, 1.5, (6, 4))
        cells = np.argmin([((np.indices((12, 13, 14)).T - rng.random(3) * 14) ** 2).sum(-1).T for _ in means], axis=0)
        embeddings = (means[cells] + rng.normal(0, 0.4, (12, 13, 14, 4))).transpose(3, 0, 1, 2).astype(np.float32)
        padded = np.pad(cells.astype(np.uint32), 1)
        bounds, before = bounds_of(padded, embeddings, means, unit, moved), padded.copy()
        expected = padded.copy()
        refine_borders(expected, embeddings, means, 3, evenness)
        refine_borders(padded, embeddings, means, 3, evenness, bounds=bounds)
        np.testing.assert_array_equal(padded, expected)
        assert (bounds.units[padded != before] == UNKNOWN).all()


def test_what_bounds_rule_out_is_not_read():
    padded = np.pad(np.repeat([1, 2], 6).reshape(1, 1, 12).repeat(5, 1).astype(np.uint32), 1)
    embeddings, means = np.full((2, 1, 5, 12), 9.0, np.float32), np.array([[0.0, 0.0], [-9.0, -9.0], [9.0, 9.0]])
    known, before = DistanceBounds(np.zeros(padded.shape, np.uint8), 0.1, np.zeros(3)), padded.copy()
    refine_borders(padded, embeddings, means, 4, bounds=known)
    np.testing.assert_array_equal(padded, before)
    known.units[...] = UNKNOWN
    refine_borders(padded, embeddings, means, 4, bounds=known)
    assert (padded != before).any()
