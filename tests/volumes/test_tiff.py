"""TIFF files as ImageJ, OME and others write them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import tifffile

from spoco_blocks.errors import VolumeError, VolumeNotFoundError
from spoco_blocks.grid import Box
from spoco_blocks.settings.fingerprint import fingerprint
from spoco_blocks.volumes import open_volume

SHAPE = (6, 40, 70)
BOX = Box((1, 2, 3), (5, 40, 67))
RAW = np.random.default_rng(0).integers(0, 60000, SHAPE).astype(np.uint16)
ZYX = {"metadata": {"axes": "ZYX"}}
MICRONS = {"axes": "ZYX", "spacing": 2.0, "unit": "um"}


def check(path, expected=RAW):
    volume = pickle.loads(pickle.dumps(open_volume(path)))
    assert (volume.meta.shape, volume.meta.dtype) == (expected.shape[-3:], expected.dtype)
    assert volume.meta.channels == (len(expected) if expected.ndim == 4 else None)
    for box in (BOX, Box((0, 0, 0), SHAPE), Box((5, 39, 69), SHAPE)):
        np.testing.assert_array_equal(volume.read(box), expected[(..., *box.slices)])
    return volume.meta


@pytest.mark.parametrize("suffix", [".tif", ".TIFF"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_stacks_of_imagej(tmp_path, suffix, dtype):
    path = tmp_path / f"stack{suffix}"
    tifffile.imwrite(path, RAW.astype(dtype), imagej=True, metadata=MICRONS, resolution=(4, 2))
    meta = check(path, RAW.astype(dtype))
    assert (meta.axes, meta.voxel_size_nm) == ("zyx", (2000, 500, 250))


@pytest.mark.parametrize(
    "how",
    [
        {"compression": "zlib"}, {"compression": "zlib", "tile": (16, 32)}, {"tile": (16, 32)}, {"rowsperstrip": 7},
        {"byteorder": ">"}, {"bigtiff": True}, {"photometric": "minisblack"}, {"metadata": None},
    ],
)  # fmt: skip
def test_other_files(tmp_path, how):
    tifffile.imwrite(tmp_path / "stack.tif", RAW, **{"photometric": "minisblack"} | how)
    assert check(tmp_path / "stack.tif").voxel_size_nm is None


def test_pages_that_lie_apart(tmp_path):
    with tifffile.TiffWriter(tmp_path / "stack.tif") as file:
        for number, section in enumerate(RAW):
            file.write(section, contiguous=False, description=f"section {number}", metadata=None)
    check(tmp_path / "stack.tif")


def test_channels_come_first_wherever_the_file_has_them(tmp_path):
    channels = np.stack([RAW, RAW // 2])
    slices_first = np.ascontiguousarray(channels.swapaxes(0, 1))
    metadata = {"axes": "ZCYX", "spacing": 2.0, "unit": "micron"}
    tifffile.imwrite(tmp_path / "imagej.tif", slices_first, imagej=True, metadata=metadata, resolution=(4, 4))
    assert check(tmp_path / "imagej.tif", channels).axes == "czyx"
    tifffile.imwrite(tmp_path / "packed.tif", slices_first, compression="zlib", metadata={"axes": "ZCYX"})
    check(tmp_path / "packed.tif", channels)
    colours = np.stack([RAW, RAW // 2, RAW // 3]).astype(np.uint8)
    tifffile.imwrite(tmp_path / "colours.tif", np.ascontiguousarray(np.moveaxis(colours, 0, -1)), photometric="rgb")
    check(tmp_path / "colours.tif", colours)


def test_ome_tiff(tmp_path):
    sizes = {"PhysicalSizeX": 0.3, "PhysicalSizeY": 0.4, "PhysicalSizeZ": 1500, "PhysicalSizeZUnit": "nm"}
    tifffile.imwrite(tmp_path / "stack.ome.tif", np.stack([RAW, RAW // 2]), metadata={"axes": "CZYX", **sizes})
    meta = check(tmp_path / "stack.ome.tif", np.stack([RAW, RAW // 2]))
    assert meta.voxel_size_nm == pytest.approx((1500, 400, 300))


@pytest.mark.parametrize(
    ("unit", "found"),
    [
        ("micron", (1000, 500, 500)), ("\\u00B5m", (1000, 500, 500)), ("nm", (1, 0.5, 0.5)), ("pixel", None),
        ("", None),
    ],
)  # fmt: skip
def test_units_of_imagej(tmp_path, unit, found):
    """A spacing of one unit is not written."""
    tifffile.imwrite(tmp_path / "s.tif", RAW, imagej=True, metadata={"axes": "ZYX", "unit": unit}, resolution=(2, 2))
    assert open_volume(tmp_path / "s.tif").meta.voxel_size_nm == found


def test_what_the_user_says_counts(tmp_path):
    tifffile.imwrite(tmp_path / "stack.tif", RAW, imagej=True, metadata=MICRONS, resolution=(4, 2))
    meta = open_volume(tmp_path / "stack.tif", axes="nyx", voxel_size_nm=(1, 2, 3)).meta
    assert (meta.axes, meta.voxel_size_nm) == ("nyx", (1, 2, 3))


def test_a_section_is_a_volume_and_an_edited_file_is_noticed(tmp_path):
    path = tmp_path / "section.tif"
    tifffile.imwrite(path, RAW[0])
    volume, before = open_volume(path), fingerprint(str(path))
    np.testing.assert_array_equal(volume.read(Box((0, 1, 2), (1, 5, 9))), RAW[:1, 1:5, 2:9])
    tifffile.imwrite(path, RAW[1])
    np.testing.assert_array_equal(volume.read(Box((0, 1, 2), (1, 5, 9))), RAW[1:2, 1:5, 2:9])
    assert fingerprint(str(path)) != before


def test_errors_say_what_to_do(tmp_path):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, RAW, compression="zlib", photometric="minisblack")
    with pytest.raises(VolumeError, match=r"level 0 only.*downscale"):
        open_volume(path, level=1)
    with pytest.raises(VolumeError, match="name 2 axes"):
        open_volume(path, axes="yx")
    with pytest.raises(VolumeError, match="read only"):
        open_volume(path).write(BOX, RAW[BOX.slices])
    with pytest.raises(VolumeNotFoundError, match="nothing is stored there"):
        open_volume(tmp_path / "other.tif")
    # A way to compress that needs a package of its own, said of the same bytes.
    with tifffile.TiffFile(path, mode="r+") as file:
        for page in file.pages:
            page.tags["Compression"].overwrite(50001)
    with pytest.raises(VolumeError, match=r"compressed \(WEBP\).*imagecodecs"):
        open_volume(path)
    path.write_bytes(b"no image")
    with pytest.raises(VolumeError, match="cannot be read as TIFF"):
        open_volume(path)
    tifffile.imwrite(path, np.stack([RAW, RAW]), imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(VolumeError, match="2 time points"):
        open_volume(path)


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize(
    "how",
    [
        {"imagej": True} | ZYX, {"ome": True} | ZYX, {"metadata": None}, {"compression": "zlib"}, {},
        {"tile": (16, 32)}, {"imagej": True, "compression": "zlib"} | ZYX, {"ome": True, "compression": "zlib"} | ZYX,
    ],
)  # fmt: skip
def test_a_file_that_is_cut_off_is_no_smaller_volume(tmp_path, how, kept):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, RAW, photometric="minisblack", **how)
    check(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(VolumeError, match="copy it again"):
        open_volume(path)


def test_descriptions_of_ome_that_say_less(tmp_path):
    path = tmp_path / "section.ome.tif"
    pixel = {"PhysicalSizeX": 5.0, "PhysicalSizeXUnit": "Å", "PhysicalSizeY": 4e-9, "PhysicalSizeYUnit": "m"}
    tifffile.imwrite(path, RAW[0], ome=True, photometric="minisblack", metadata={"axes": "YX", **pixel})
    assert open_volume(path).meta.voxel_size_nm[1:] == pytest.approx((4.0, 0.5))
    path.write_bytes(path.read_bytes().replace(b"<Pixels", b"<Pix</s"))
    assert open_volume(path).meta.voxel_size_nm is None
