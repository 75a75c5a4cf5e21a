from __future__ import annotations

import numpy as np
import pytest
import zarr

from spoco_blocks.errors import VolumeError
from spoco_blocks.grid import Box
from spoco_blocks.volumes import open_volume, read_instances

BOX = Box((2, 1, 0), (4, 4, 5))


def stored(tmp_path, array, axes=None):
    zarr.create_array(tmp_path / "labels.zarr", data=array)
    return open_volume(tmp_path / "labels.zarr", axes=axes)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "uint64", "float32"])
def test_ids_of_any_whole_type(tmp_path, dtype):
    labels = np.random.default_rng(0).integers(0, 5, (4, 5, 6)).astype(dtype)
    ids = read_instances(stored(tmp_path, labels), BOX)
    assert ids.dtype == np.uint64
    np.testing.assert_array_equal(ids, labels[BOX.slices].astype(np.uint64))


def test_large_ids_are_kept(tmp_path):
    labels = np.full((4, 5, 6), 2**64 - 1, np.uint64)
    assert (read_instances(stored(tmp_path, labels), BOX) == labels[0, 0, 0]).all()


def test_independent_images_get_ids_of_their_own(tmp_path):
    labels = np.random.default_rng(0).integers(0, 5, (4, 5, 6)).astype(np.uint16)
    volume = stored(tmp_path, labels, "nyx")
    ids = read_instances(volume, BOX)
    for n in range(2, 4):
        expected = labels[n, 1:4, 0:5].astype(object)
        expected = np.where(expected > 0, expected + ((n + 1) << 32), 0)
        np.testing.assert_array_equal(ids[n - 2].astype(object), expected)
    whole = read_instances(volume, Box.of_shape((4, 5, 6)))
    np.testing.assert_array_equal(whole[BOX.slices], ids)
    first, second = (set(np.unique(image)) - {0} for image in whole[:2])
    assert first.isdisjoint(second)


@pytest.mark.parametrize(
    ("array", "axes", "message"),
    [
        (np.full((4, 5, 6), -1, np.int16), None, "must not be negative; got -1"),
        (np.full((4, 5, 6), -1.0), None, "must not be negative"),
        (np.full((4, 5, 6), 0.5), None, "whole numbers"),
        (np.full((4, 5, 6), np.nan), None, "whole numbers"),
        (np.full((4, 5, 6), np.inf), None, "whole numbers"),
        (np.ones((2, 4, 5, 6), np.uint8), None, "have no channels; got 2"),
        (np.full((4, 5, 6), 2**32, np.uint64), "nyx", r"below 2\*\*32"),
    ],
)
def test_values_that_are_no_ids(tmp_path, array, axes, message):
    with pytest.raises(VolumeError, match=message):
        read_instances(stored(tmp_path, array, axes), BOX)
