"""Crops are read as the volume has them."""

from __future__ import annotations

import numpy as np
import pytest
from phantoms import balls, store

from spoco_blocks.errors import LabelsError
from spoco_blocks.grid import Box
from spoco_blocks.learn.crops import TrainingVolume, choose_patch, fit_patch
from spoco_blocks.learn.intensity import Normalisation
from spoco_blocks.learn.supervision import Supervision
from spoco_blocks.volumes import open_volume


@pytest.fixture
def volume(tmp_path):
    raw, labels = balls((40, 80, 80))
    region = Box((0, 0, 0), (40, 80, 72))
    ids = np.unique(labels)[1:].astype(np.uint64)
    label_volume = open_volume(store(tmp_path / "labels.zarr", labels))
    supervision = Supervision(label_volume, ids, region, None, None, False, 0.0, (1, 1, 1), 0)
    anchors = {int(i): np.argwhere(labels == i)[:5] for i in ids[:3]}
    opened = open_volume(store(tmp_path / "raw.zarr", raw))
    return TrainingVolume(opened, Normalisation((40.0,), (190.0,)), supervision, anchors)


@pytest.mark.parametrize("cache", [2**30, 10**5, 1])
def test_crops_equal_a_direct_read(volume, cache):
    volume.cache_bytes = cache
    for box in (Box((0, 0, 0), (40, 80, 72)), Box((3, 50, 60), (30, 75, 71)), Box((3, 50, 60), (30, 75, 71))):
        raw, labels = volume.read(box)
        np.testing.assert_array_equal(raw, volume.normalisation(volume.raw.read(box)))
        np.testing.assert_array_equal(labels, volume.supervision.read(box))
        assert volume.cached_bytes <= cache


def test_drawn_boxes_stay_inside_and_find_objects(volume):
    within, rng = Box((0, 0, 0), (40, 80, 40)), np.random.default_rng(0)
    for centred in (1.0, 0.0):
        boxes = [volume.draw((16, 16, 16), centred, rng, within) for _ in range(50)]
        assert all(within.contains(box) and box.shape == (16, 16, 16) for box in boxes)
        hits = np.mean([(volume.read(box)[1] > 0).any() for box in boxes])
        assert hits > 0.6
    assert len({box.start for box in boxes}) > 20


def test_patches_fit_strides_region_and_objects():
    region = Box((0, 0, 0), (30, 100, 100))
    assert fit_patch((40, 41, 64), (4, 4, 4), region) == (28, 44, 64)
    with pytest.raises(LabelsError, match="smaller than the network's stride"):
        fit_patch((16, 16, 16), (4, 4, 4), Box((0, 0, 0), (3, 50, 50)))
    assert choose_patch(7500, (500, 500, 500), planar=False) == (36, 36, 36)
    deep = choose_patch(600, (50, 5, 5), planar=False)
    assert deep[1] == deep[2] >= 5 * deep[0]
    assert choose_patch(100, (5, 5, 5), planar=True)[0] == 1


def test_normalisation_is_per_channel():
    raw = np.stack([np.linspace(0, 100, 27), np.linspace(0, 1000, 27)]).reshape(2, 3, 3, 3)
    found = Normalisation((0.0, 0.0), (100.0, 1000.0))(raw)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert (found.min(), found.max()) == (-1, 3)
    assert Normalisation((5.0,), (5.0,))(np.full((2, 2, 2), 5)).max() == -1
