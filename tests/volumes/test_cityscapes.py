"""A Cityscapes folder reads as its files decode; a class, all things, or crowds are chosen by the URI."""

from __future__ import annotations

import numpy as np
import pytest
from image_folders import CAR, PERSON, write_cityscapes

from spoco_blocks.errors import VolumeError, VolumeNotFoundError
from spoco_blocks.grid import Box
from spoco_blocks.settings.fingerprint import fingerprint
from spoco_blocks.volumes import open_volume, read_instances

SHAPE = (3, 32, 64)
WHOLE = Box.of_shape(SHAPE)


@pytest.fixture
def streets(tmp_path):
    return tmp_path / "cityscapes", write_cityscapes(tmp_path / "cityscapes")


def test_images(streets):
    folder, written = streets
    raw = open_volume(folder / "leftImg8bit/train")
    assert (raw.meta.axes, raw.meta.channels, raw.meta.shape) == ("cnyx", 3, SHAPE)
    np.testing.assert_array_equal(raw.read(WHOLE), np.moveaxis(np.stack([rgb for _, rgb, _ in written]), -1, 0))


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("?class=car", lambda ids: np.where(ids // 1000 == CAR, ids, 0)),
        ("?class=person", lambda ids: np.where(ids // 1000 == PERSON, ids, 0)),
        ("?class=things", lambda ids: np.where(ids >= 1000, ids, 0)),
        ("", lambda ids: np.where(ids >= 1000, ids, 0)),
        ("?class=bus", np.zeros_like),
        ("?crowd=car", lambda ids: ids == CAR),
        ("?crowd=things", lambda ids: ids == CAR),
        ("?crowd=person", np.zeros_like),
    ],
)
def test_classes(streets, query, kept):
    folder, written = streets
    volume = open_volume(f"{folder}/gtFine/train{query}")
    assert volume.meta.axes == "nyx"
    np.testing.assert_array_equal(volume.read(WHOLE), kept(np.stack([ids for *_, ids in written])))


def test_instances_of_different_images_are_different_objects(streets):
    folder, _ = streets
    ids = read_instances(open_volume(f"{folder}/gtFine/train?class=car"), WHOLE)
    assert len(np.unique(ids)) - 1 == 6


def test_downscaled(streets):
    folder, written = streets
    cars = open_volume(f"{folder}/gtFine/train?class=car&downscale=2")
    assert cars.meta.shape == (3, 16, 32)
    ids = written[0][2][::2, ::2]  # every border in these images lies on an even pixel
    found = cars.read(Box((0, 0, 0), (1, 16, 32)))[0]
    np.testing.assert_array_equal(found, np.where(ids // 1000 == CAR, ids, 0))


def test_what_is_wrong_is_said(streets):
    folder, _ = streets
    for uri, message in (
        ("gtFine/train?class=cra", "did you mean 'car'"),
        ("gtFine/train?class=road", "expected things, person"),
        ("gtFine/train?class=car&crowd=car", "give one of them"),
        ("gtFine/train?kind=car", r"class=\.\.\., crowd="),
        ("leftImg8bit/train?class=car", "have no classes"),
    ):
        with pytest.raises(VolumeError, match=message):
            open_volume(f"{folder}/{uri}")
    with pytest.raises(VolumeNotFoundError, match="train"):
        open_volume(folder / "leftImg8bit/val")
    (folder / "leftImg8bit/val").mkdir()
    with pytest.raises(VolumeNotFoundError, match=r"no CITY/\*_leftImg8bit\.png"):
        open_volume(folder / "leftImg8bit/val")
    (folder / "gtFine/train/aachen/aachen_000001_000019_gtFine_instanceIds.png").unlink()
    with pytest.raises(VolumeError, match=r"aachen_000001_000019 is not in both"):
        open_volume(folder / "gtFine/train?class=car")


def test_edited_files_show_in_the_fingerprint(streets, tmp_path):
    folder, _ = streets
    uri = f"{folder}/gtFine/train?class=car"
    before = fingerprint(uri)
    assert fingerprint(uri) == before
    (folder / "gtFine/train/bochum/bochum_000000_000313_gtFine_instanceIds.png").unlink()
    assert fingerprint(uri) != before
