from __future__ import annotations

import numpy as np
import pytest
from oracles import spread

from spoco_blocks.kernels.distance import UNKNOWN
from spoco_blocks.kernels.lattice import spread_labels


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("step", [(2, 2, 2), (1, 2, 2), (1, 1, 1)])
@pytest.mark.parametrize("shape", [(5, 8, 9), (6, 7, 10), (1, 12, 9), (4, 1, 1)])
def test_equals_voxel_by_voxel(shape, step, dtype):
    rng = np.random.default_rng(0)
    embeddings = rng.normal(0, 1, (3, *shape)).astype(dtype)
    foreground = rng.random(shape) < 0.8
    on_lattice = [-(-n // s) for n, s in zip(shape, step, strict=True)]
    # Mostly of one label around, so that both ways are gone.
    lattice = np.where(rng.random(on_lattice) < 0.6, 1, rng.integers(0, 4, on_lattice)).astype(np.uint32)
    means = rng.normal(0, 1, (4, 3)).astype(np.float32)
    found = spread_labels(lattice, embeddings, foreground, means, step, 1.2, 3.0)
    labels, empty, odd = spread(lattice, embeddings, foreground, means, step, 1.2, 3.0)
    np.testing.assert_array_equal(found.padded, np.pad(labels, 1))
    assert found.empty.tolist() == empty
    assert found.odd.tolist() == odd
    bounds = found.bounds.units[1:-1, 1:-1, 1:-1]
    distances = np.linalg.norm(embeddings - means[labels].transpose(3, 0, 1, 2), axis=0) / found.bounds.unit
    known = labels > 0
    assert (bounds[foreground & ~known] == UNKNOWN).all()
    assert (bounds[known] + 1e-3 >= np.minimum(distances[known], UNKNOWN)).all()
    assert (bounds[known] <= distances[known] + 1 + 1e-3).all()


def test_means_are_of_voxels_among_their_own():
    lattice = np.ones((4, 4, 8), np.uint32)
    lattice[..., 4:] = 2
    embeddings = np.where(np.arange(16) < 8, 3.0, 5.0) * np.ones((1, 8, 8, 16), np.float32)
    # Between the two, what belongs to neither.
    embeddings[..., 7] = 4.0
    found = spread_labels(
        lattice, embeddings, np.ones((8, 8, 16), bool), np.array([[0.0], [3.2], [4.8]]), (2, 2, 2), 2, 1
    )
    assert found.means[1:, 0].tolist() == [3.0, 5.0]
    assert found.counts[0] == 0
    assert (found.counts[1:] > 100).all()


def test_a_label_without_such_voxels_keeps_its_mean():
    found = spread_labels(
        np.zeros((1, 1, 1), np.uint32),
        np.ones((2, 2, 2, 2)),
        np.ones((2, 2, 2), bool),
        np.ones((2, 2)),
        (2, 2, 2),
        1,
        1,
    )
    assert found.means[1].tolist() == [1, 1]
    assert found.empty.tolist() == list(range(8))
