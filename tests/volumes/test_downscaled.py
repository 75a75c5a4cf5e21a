"""Volumes read at a coarser scale."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from spoco_blocks.errors import VolumeError
from spoco_blocks.grid import Box
from spoco_blocks.kernels.downsample import downsample_mean, downsample_mode
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.sources import id_source, open_like, open_source

FACTOR = (1, 2, 3)


@pytest.fixture
def uri(tmp_path):
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["raw"] = rng.integers(0, 1000, (5, 9, 11)).astype(np.uint16)
        file["rgb"] = rng.integers(0, 255, (3, 5, 9, 11)).astype(np.uint8)
        file["labels"] = rng.integers(0, 4, (5, 9, 11)).astype(np.int32)
    return str(tmp_path / "v.h5")


@pytest.mark.parametrize("box", [Box((0, 0, 0), (5, 5, 4)), Box((1, 2, 1), (4, 5, 4)), Box((2, 3, 3), (3, 4, 4))])
def test_a_box_is_a_part_of_the_coarser_whole(uri, box):
    with h5py.File(uri) as file:
        raw, rgb, labels = file["raw"][:], file["rgb"][:], file["labels"][:].astype(np.uint64)
    image = open_source(Source(uri=f"{uri}/raw", downscale=FACTOR), (40.0, 5.0, 5.0))
    assert image.meta.shape == (5, 5, 4)
    assert image.meta.voxel_size_nm == (40, 10, 15)
    np.testing.assert_array_equal(image.read(box), downsample_mean(raw, FACTOR)[box.slices])
    colours = open_source(Source(uri=f"{uri}/rgb", downscale=FACTOR))
    np.testing.assert_array_equal(colours.read(box)[2], downsample_mean(rgb[2], FACTOR)[box.slices])
    ids = open_like(Source(uri=f"{uri}/labels", downscale=FACTOR), image, "labels")
    np.testing.assert_array_equal(ids.read(box), downsample_mode(labels, FACTOR)[box.slices])


def test_images_are_not_mixed_and_nothing_is_written(uri):
    with pytest.raises(VolumeError, match="must not be averaged"):
        open_source(Source(uri=f"{uri}/raw", axes="nyx", downscale=(2, 2, 2)))
    volume = open_source(id_source(Source(uri=f"{uri}/labels", downscale=FACTOR)))
    with pytest.raises(VolumeError, match="coarser scale only"):
        volume.write(Box((0, 0, 0), (1, 1, 1)), np.zeros((1, 1, 1), np.uint64))
