"""A CVPPP folder reads as its files decode, whatever their sizes and kinds of PNG."""

from __future__ import annotations

import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from image_folders import write_cvppp
from PIL import Image

from spoco_blocks.errors import VolumeError, VolumeNotFoundError
from spoco_blocks.grid import Box
from spoco_blocks.volumes import open_volume, read_instances

SIZES = [(40, 50), (33, 61), (40, 50), (48, 20)]
SHAPE = (4, 48, 61)
BOX = Box((1, 20, 10), (4, 45, 60))


@pytest.fixture
def folder(tmp_path):
    plants = write_cvppp(tmp_path / "A1", SIZES)
    return tmp_path / "A1", plants


def padded(images: list[np.ndarray], outside: int = 0) -> np.ndarray:
    whole = np.full((len(images), *SHAPE[1:], *images[0].shape[2:]), outside, images[0].dtype)
    for n, image in enumerate(images):
        whole[n, : image.shape[0], : image.shape[1]] = image
    return whole


def test_images_and_labels_are_padded_at_their_far_ends(folder):
    path, plants = folder
    rgb = np.moveaxis(padded([image for image, _ in plants]), -1, 0)
    labels = padded([labels for _, labels in plants])
    padding = padded([np.zeros(labels.shape, np.uint8) for _, labels in plants], 1)
    raw = open_volume(path / "rgb")
    assert (raw.meta.axes, raw.meta.channels, raw.meta.shape, raw.meta.dtype) == ("cnyx", 3, SHAPE, np.uint8)
    assert raw.meta.independent_images
    assert raw.meta.chunk_shape == (1, *SHAPE[1:])
    for name, expected in (("rgb", rgb), ("label", labels), ("padding", padding)):
        volume = open_volume(path / name)
        for box in (Box.of_shape(SHAPE), BOX, Box((3, 0, 30), (4, 10, 40))):
            np.testing.assert_array_equal(volume.read(box), expected[(..., *box.slices)])
    assert open_volume(path / "label").meta.axes == "nyx"


def test_leaves_of_different_plants_are_different_objects(folder):
    path, plants = folder
    ids = read_instances(open_volume(path / "label"), Box.of_shape(SHAPE))
    assert len(np.unique(ids)) - 1 == sum(len(np.unique(labels)) - 1 for _, labels in plants)


def test_downscaled(folder):
    path, plants = folder
    small = open_volume(f"{path}/rgb?downscale=2", voxel_size_nm=(1.0, 10.0, 10.0))
    assert (small.meta.shape, small.meta.voxel_size_nm) == ((4, 24, 31), (1.0, 20.0, 20.0))
    first = plants[0][0].reshape(20, 2, 25, 2, 3).mean((1, 3))
    shown = small.read(Box((0, 0, 0), (1, 20, 25)))[:, 0]
    np.testing.assert_allclose(np.moveaxis(shown, 0, -1), first, atol=0.5)
    labels = open_volume(f"{path}/label?downscale=2").read(Box((0, 0, 0), (1, 24, 31)))[0]
    windows = plants[0][1].reshape(20, 2, 25, 2).swapaxes(1, 2).reshape(20, 25, 4)
    whole = (windows == windows[..., :1]).all(-1)
    assert whole.mean() > 0.8
    np.testing.assert_array_equal(labels[:20, :25][whole], windows[..., 0][whole])
    padding = open_volume(f"{path}/padding?downscale=2").read(Box((1, 0, 0), (2, 24, 31)))[0]
    assert (padding == 0).sum() == 17 * 31
    assert (padding[:17] == 0).all()


def test_many_threads_and_processes_read_the_same(folder):
    path, _ = folder
    volume = open_volume(path / "rgb")
    expected = volume.read(Box.of_shape(SHAPE))
    boxes = [Box((n, y, 0), (n + 1, y + 8, 61)) for n in range(4) for y in range(0, 40, 4)] * 5
    with ThreadPoolExecutor(8) as pool:
        for box, found in zip(boxes, pool.map(pickle.loads(pickle.dumps(volume)).read, boxes), strict=True):
            np.testing.assert_array_equal(found, expected[(slice(None), *box.slices)])


def test_an_edited_file_is_read_anew(folder):
    path, plants = folder
    volume, box = open_volume(path / "label"), Box((1, 0, 0), (2, 33, 61))
    volume.read(box)
    edited = np.where(plants[1][1] == 2, 77, plants[1][1]).astype(np.uint8)
    Image.fromarray(edited).save(path / "plant002_label.png")
    np.testing.assert_array_equal(volume.read(box)[0], edited)


def test_what_is_wrong_is_said(folder, tmp_path):
    path, _ = folder
    with pytest.raises(VolumeError, match=r"level 0 only.*downscale"):
        open_volume(path / "rgb", level=1)
    with pytest.raises(VolumeError, match='has axes "cnyx"; got "zyx"'):
        open_volume(path / "rgb", axes="zyx")
    for query, message in (("downscale=0", "number from 1 up"), ("scale=2", r"expected downscale=")):
        with pytest.raises(VolumeError, match=message):
            open_volume(f"{path}/rgb?{query}")
    with pytest.raises(VolumeError, match="read only"):
        open_volume(path / "padding").write(Box((0, 0, 0), (1, 1, 1)), np.zeros((1, 1, 1), np.uint8))
    with pytest.raises(VolumeNotFoundError):
        open_volume(tmp_path / "A2/rgb")
    with pytest.raises(VolumeNotFoundError):
        open_volume(path / "labels")

    label = path / "plant002_label.png"
    Image.open(label).convert("RGB").save(label)
    with pytest.raises(VolumeError, match=r"plant002_label.png: holds RGB.*one number per pixel"):
        open_volume(path / "label").read(Box.of_shape(SHAPE))
    shutil.copy(path / "plant001_label.png", label)
    with pytest.raises(VolumeError, match=r"plant002_label.png: is \(40, 50\).*its image \(33, 61\)"):
        open_volume(path / "label")
    label.unlink()
    with pytest.raises(VolumeError, match=r"plant002_label\.png missing"):
        open_volume(path / "label")
    image = path / "plant001_rgb.png"
    image.write_bytes(image.read_bytes()[:2000])
    with pytest.raises(VolumeError, match=r"plant001_rgb\.png: cannot be read as an image"):
        open_volume(path / "rgb").read(Box.of_shape(SHAPE))
