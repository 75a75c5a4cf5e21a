"""Label volumes read as one: the first that labels a voxel decides, and ids never collide."""

from __future__ import annotations

import numpy as np
import pytest
from phantoms import store

from spoco_blocks.errors import VolumeError
from spoco_blocks.grid import Box
from spoco_blocks.volumes import JoinedLabels, open_volume, read_instances

SHAPE = (6, 20, 24)
BOX = Box((1, 3, 2), (6, 18, 20))


def joined(tmp_path, *arrays, axes=None) -> JoinedLabels:
    uris = [store(tmp_path / f"{index}.zarr", array) for index, array in enumerate(arrays)]
    return JoinedLabels(tuple(open_volume(uri, axes=axes) for uri in uris))


def test_earlier_volumes_win_and_every_object_keeps_one_id(tmp_path):
    rng = np.random.default_rng(0)
    first = (rng.integers(0, 4, SHAPE) * (rng.random(SHAPE) < 0.3)).astype(np.uint8)
    second = (rng.integers(0, 4, SHAPE) * (rng.random(SHAPE) < 0.5)).astype(np.int32)
    third = rng.integers(0, 3, SHAPE).astype(np.uint64)
    found = joined(tmp_path, first, second, third)
    ids = read_instances(found, BOX)
    names = {}
    for place in np.argwhere(np.ones(BOX.shape, bool)):
        z, y, x = place + BOX.start
        name = next(((i, int(a[z, y, x])) for i, a in enumerate((first, second, third)) if a[z, y, x]), None)
        assert names.setdefault(name, ids[tuple(place)]) == ids[tuple(place)]
    assert names.pop(None) == 0
    assert len(set(names.values())) == len(names) == 8
    np.testing.assert_array_equal(read_instances(found, Box.of_shape(SHAPE))[BOX.slices], ids)
    assert (found.meta.shape, found.meta.dtype) == (SHAPE, np.uint64)


def test_ids_of_64_bits_are_told_apart_or_refused(tmp_path):
    labels = np.zeros(SHAPE, np.uint64)
    labels[2, 5:8, 5:8], labels[3, 5:8, 5:8] = 2**63 - 1, 2**63 - 2
    found = joined(tmp_path, labels, np.ones(SHAPE, np.uint8))
    assert len(np.unique(read_instances(found, BOX))) == 3
    labels[2, 5, 5] = 2**63
    with pytest.raises(VolumeError, match=r"must not exceed 9223372036854775807; got 9223372036854775808"):
        joined(tmp_path / "large", labels, np.ones(SHAPE, np.uint8)).read(BOX)


def test_values_that_are_no_ids_are_refused_by_their_own_name(tmp_path):
    with pytest.raises(VolumeError, match=r"1\.zarr: labels must not be negative"):
        joined(tmp_path, np.ones(SHAPE, np.uint8), np.full(SHAPE, -1, np.int8)).read(BOX)
    with pytest.raises(VolumeError, match="joined for reading only"):
        joined(tmp_path / "b", np.ones(SHAPE, np.uint8)).write(BOX, np.ones(BOX.shape, np.uint64))


def test_independent_images_keep_their_own_objects(tmp_path):
    found = joined(tmp_path, np.zeros(SHAPE, np.uint8), np.ones(SHAPE, np.uint8), axes="nyx")
    ids = read_instances(found, Box.of_shape(SHAPE))
    assert len(np.unique(ids)) == SHAPE[0]
    assert all(len(np.unique(image)) == 1 for image in ids)
