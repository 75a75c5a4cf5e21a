from __future__ import annotations

import numpy as np
import pytest
from oracles import adjusted_rand_index, mutex_partition
from pydantic import TypeAdapter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bench.phantoms import make
from spoco_blocks.clustering import EmbeddingMutex, segment
from spoco_blocks.errors import SettingsError
from spoco_blocks.settings.segmentation import ClusteringSettings


def neurites(gap):
    """Two neurites side by side, whose embeddings drift along them; for `gap` voxels the border is blended away."""
    truth = np.zeros((6, 12, 60), np.uint32)
    truth[:, :6], truth[:, 6:] = 1, 2
    embeddings = np.zeros((4, *truth.shape))
    embeddings[0] = np.where(truth == 1, 0, 4)
    embeddings[1] = np.linspace(0, 6, 60)
    gate = slice(30, 30 + gap)
    for y, share in zip(range(4, 8), (0.2, 0.4, 0.6, 0.8), strict=True):
        embeddings[0, :, y, gate] = 4 * share
    embeddings += np.random.default_rng(0).normal(0, 0.1, embeddings.shape)
    return embeddings.astype(np.float16), truth


@pytest.mark.parametrize("gap", [0, 1, 4])
def test_a_gap_in_the_border_of_two_drifting_neurites_does_not_join_them(gap):
    embeddings, truth = neurites(gap)
    labels = EmbeddingMutex()(embeddings, truth > 0)
    assert labels.max() == 2
    assert adjusted_rand_index(truth, labels) > 0.95
    assert joined_by_near_neighbours(embeddings, 1.5) == (1 if gap else 2)


def joined_by_near_neighbours(embeddings, distance):
    """Count what the best path alone would find: voxels are one object where a chain of near neighbours links them."""
    places = np.arange(embeddings[0].size).reshape(embeddings.shape[1:])
    pairs = []
    for axis in range(3):
        first, second = np.moveaxis(embeddings, axis + 1, 1)[:, :-1], np.moveaxis(embeddings, axis + 1, 1)[:, 1:]
        near = np.linalg.norm(first.astype(float) - second, axis=0) < distance
        moved = np.moveaxis(places, axis, 0)
        pairs.append(np.stack([moved[:-1][near], moved[1:][near]]))
    first, second = np.concatenate(pairs, axis=1)
    return connected_components(coo_array((np.ones(len(first)), (first, second)), (places.size,) * 2))[0]


def test_crowded_objects_are_told_apart():
    phantom = make((48, 48, 48), 12, channels=16, variant="easy", seed=0)
    method = EmbeddingMutex(min_voxels=500)
    labels = segment(method, phantom.embeddings, phantom.foreground)
    assert adjusted_rand_index(phantom.truth, labels, phantom.foreground) > 0.85
    assert abs(int(labels.max()) - phantom.objects) <= 3


def test_equals_the_mutex_watershed_of_distances():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(0, 1, (3, 4, 7, 8)).astype(np.float32)
    foreground = rng.random((4, 7, 8)) < 0.9
    offsets = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 0, 0), (0, 2, 0), (0, 0, 2)])
    affinities = np.zeros((6, *foreground.shape), np.uint8)
    for o, offset in enumerate(offsets):
        for place in np.ndindex(foreground.shape):
            other = tuple(np.add(place, offset))
            if all(p < n for p, n in zip(other, foreground.shape, strict=True)):
                gap = np.linalg.norm(embeddings[(slice(None), *place)] - embeddings[(slice(None), *other)])
                share = 1 - gap / 3 if o < 3 else 1 - (gap - 1.5) / 1.5
                affinities[(o, *place)] = int(255 * min(1, max(0, share)) + 0.5)
    method = EmbeddingMutex(delta_dist=1.5, reaches_voxels=(2,), min_voxels=1)
    expected = mutex_partition(affinities, offsets, 3, foreground)
    assert expected.max() > 5
    np.testing.assert_array_equal(method(embeddings, foreground), expected)


def test_settings():
    with pytest.raises(SettingsError, match="delta_dist must be more than 0"):
        EmbeddingMutex(delta_dist=0)
    with pytest.raises(SettingsError, match=r"2 or more voxels, such as \[3, 9\]; got \[1, 9\]"):
        EmbeddingMutex(reaches_voxels=(1, 9))
    read = TypeAdapter(ClusteringSettings).validate_python({"kind": "embedding_mutex", "reaches_voxels": [2, 5]})
    assert read == EmbeddingMutex(reaches_voxels=(2, 5))
