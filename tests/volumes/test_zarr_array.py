"""Zarr arrays: what is written is read, foreign layouts are understood, mistakes are named."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from spoco_blocks.errors import VolumeError, VolumeNotFoundError
from spoco_blocks.grid import Box
from spoco_blocks.volumes import FORMATS, choose_chunks, create_zarr, open_volume

WHOLE = Box.of_shape((20, 36, 40))
PART = Box((3, 5, 7), (17, 36, 23))
DTYPES = ["uint8", "uint16", "uint32", "uint64", "int16", "float16", "float32", "bool"]


def noise(shape, dtype="uint16", seed=0):
    return (np.random.default_rng(seed).random(shape) * 200).astype(dtype)


def create(path, **options):
    defaults = {"shape": WHOLE.shape, "dtype": "uint16", "chunk_shape": (8, 8, 8), "shard_shape": (16, 16, 16)}
    return create_zarr(str(path), **{**defaults, **options})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize("shard", [(16, 16, 16), None])
def test_what_is_written_is_read(tmp_path, dtype, channels, shard):
    volume = create(tmp_path / "a.zarr", dtype=dtype, channels=channels, shard_shape=shard, voxel_size_nm=(30, 8, 8))
    leading = () if channels is None else (channels,)
    voxels = noise((*leading, *WHOLE.shape), dtype)
    assert not volume.read(WHOLE).any()
    for z in (0, 16):
        box = Box((z, 0, 0), (min(z + 16, 20), 36, 40))
        volume.write(box, voxels[(..., *box.slices)])
    again = open_volume(volume.uri)
    assert again.meta == volume.meta
    assert (again.meta.shape, again.meta.channels) == (WHOLE.shape, channels)
    assert again.meta.axes == ("zyx" if channels is None else "czyx")
    assert (again.meta.chunk_shape, again.meta.shard_shape) == ((8, 8, 8), shard or (8, 8, 8))
    assert again.meta.voxel_size_nm == (30, 8, 8)
    for reader in (volume, again):
        np.testing.assert_array_equal(reader.read(WHOLE), voxels)
        part = reader.read(PART)
        assert part.dtype == np.dtype(dtype)
        assert part.flags.c_contiguous
        np.testing.assert_array_equal(part, voxels[(..., *PART.slices)])


@given(
    st.lists(st.tuples(*[st.tuples(st.integers(0, n), st.integers(0, n)) for n in WHOLE.shape]), min_size=1, max_size=4)
)
@settings(max_examples=25, deadline=None)
def test_any_boxes_read_as_the_array_does(tmp_path_factory, ranges):
    volume = create(tmp_path_factory.mktemp("boxes") / "a.zarr")
    expected = np.zeros(WHOLE.shape, np.uint16)
    for seed, corners in enumerate(ranges, start=1):
        box = Box(tuple(min(c) for c in corners), tuple(max(c) for c in corners))
        voxels = noise(box.shape, seed=seed)
        expected[box.slices] = voxels
        if box.size:
            volume.write(box, voxels)
        np.testing.assert_array_equal(volume.read(box), voxels)
    np.testing.assert_array_equal(volume.read(WHOLE), expected)


def test_pickles_without_handles(tmp_path):
    volume = create(tmp_path / "a.zarr")
    volume.write(WHOLE, noise(WHOLE.shape))
    volume.read(WHOLE)
    copy = pickle.loads(pickle.dumps(volume))
    assert len(pickle.dumps(volume)) < 2000
    assert (copy.uri, copy.meta) == (volume.uri, volume.meta)
    np.testing.assert_array_equal(copy.read(PART), volume.read(PART))
    copy.write(PART, noise(PART.shape, seed=9))
    np.testing.assert_array_equal(volume.read(PART), noise(PART.shape, seed=9))


def test_fill_value(tmp_path):
    volume = create(tmp_path / "a.zarr", dtype="float32", fill_value=-1.5)
    assert (volume.read(PART) == -1.5).all()


def test_one_channel_has_no_channel_axis(tmp_path):
    volume = create(tmp_path / "a.zarr", channels=1)
    assert (volume.meta.axes, volume.meta.channels) == ("zyx", None)


def test_independent_images_survive_the_uri(tmp_path):
    volume = open_volume(create(tmp_path / "a.zarr", axes="nyx").uri)
    assert volume.meta.axes == "nyx"
    assert volume.meta.independent_images


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("shape", "axes", "presented", "expected"),
    [
        ((12, 13), None, "zyx", (1, 12, 13)),
        ((12, 13), "yx", "zyx", (1, 12, 13)),
        ((5, 12, 13), None, "zyx", (5, 12, 13)),
        ((5, 12, 13), "nyx", "nyx", (5, 12, 13)),
        ((5, 12, 13), "cyx", "czyx", (1, 12, 13)),
        ((2, 5, 12, 13), None, "czyx", (5, 12, 13)),
        ((1, 5, 12, 13), None, "zyx", (5, 12, 13)),
        ((1, 5, 12, 13), "tzyx", "zyx", (5, 12, 13)),
        ((1, 2, 5, 12, 13), None, "czyx", (5, 12, 13)),
    ],
)
def test_axes_of_foreign_arrays(tmp_path, zarr_format, shape, axes, presented, expected):
    voxels = noise(shape)
    zarr.create_array(
        tmp_path / "a.zarr", data=voxels, chunks=(1,) * (len(shape) - 2) + (7, 6), zarr_format=zarr_format
    )
    volume = open_volume(tmp_path / "a.zarr", axes=axes)
    assert (volume.meta.axes, volume.meta.shape) == (presented, expected)
    assert volume.meta.chunk_shape == (1, 7, 6)
    box = Box((0, 2, 3), (expected[0], 11, 13))
    result = volume.read(box)
    assert result.shape == (box.shape if volume.meta.channels is None else (volume.meta.channels, *box.shape))
    np.testing.assert_array_equal(result.ravel(), voxels[..., 2:11, 3:13].ravel())
    volume.write(box, result + 1)
    np.testing.assert_array_equal(
        zarr.open_array(tmp_path / "a.zarr", mode="r")[..., 2:11, 3:13].ravel(), result.ravel() + 1
    )


def test_foreign_byte_order_is_read_as_native(tmp_path):
    voxels = noise(WHOLE.shape).astype(">u2")
    zarr.create_array(tmp_path / "a.zarr", data=voxels, zarr_format=2)
    volume = open_volume(tmp_path / "a.zarr")
    assert volume.meta.dtype == np.dtype("uint16")
    np.testing.assert_array_equal(volume.read(PART), voxels[PART.slices])
    volume.write(PART, noise(PART.shape, seed=3))
    np.testing.assert_array_equal(volume.read(PART), noise(PART.shape, seed=3))


def test_group_with_one_array_needs_no_name(tmp_path):
    group = zarr.create_group(tmp_path / "g.zarr")
    group.create_array("raw", data=noise((5, 6, 7)))
    assert open_volume(tmp_path / "g.zarr").uri == f"{tmp_path}/g.zarr/raw"
    group.create_array("labels", data=noise((5, 6, 7)))
    with pytest.raises(VolumeError, match=r"labels \(5x6x7 uint16\), raw \(5x6x7 uint16\)"):
        open_volume(tmp_path / "g.zarr")


def test_voxel_size_given_wins(tmp_path):
    volume = create(tmp_path / "a.zarr", voxel_size_nm=(30, 8, 8))
    assert open_volume(volume.uri, voxel_size_nm=(40, 9, 9)).meta.voxel_size_nm == (40, 9, 9)
    for bad in [(1, 2), (0, 1, 1), (float("nan"), 1, 1)]:
        with pytest.raises(VolumeError, match="three positive numbers"):
            open_volume(volume.uri, voxel_size_nm=bad)


@pytest.mark.parametrize(
    ("box", "voxels", "message"),
    [
        (Box((0, 0, 0), (20, 36, 41)), np.zeros((20, 36, 41), np.uint16), "outside"),
        (Box((-1, 0, 0), (1, 1, 1)), np.zeros((2, 1, 1), np.uint16), "outside"),
        (Box((0, 0, 0), (2, 3, 4)), np.zeros((4, 3, 2), np.uint16), r"shape \(2, 3, 4\); got \(4, 3, 2\)"),
        (Box((0, 0, 0), (2, 3, 4)), np.zeros((1, 2, 3, 4), np.uint16), "takes an array of shape"),
        (Box((0, 0, 0), (2, 3, 4)), np.zeros((2, 3, 4), np.uint8), "holds uint16; got uint8"),
    ],
)
def test_bad_writes_are_refused_and_change_nothing(tmp_path, box, voxels, message):
    volume = create(tmp_path / "a.zarr")
    volume.write(WHOLE, noise(WHOLE.shape))
    with pytest.raises(VolumeError, match=message):
        volume.write(box, voxels)
    np.testing.assert_array_equal(volume.read(WHOLE), noise(WHOLE.shape))


def test_reading_outside_is_refused(tmp_path):
    with pytest.raises(VolumeError, match="outside the volume"):
        create(tmp_path / "a.zarr").read(Box((0, 0, 0), (21, 1, 1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axes": "xyz"}, "cannot create axes"),
        ({"axes": "nyx", "channels": 2}, "cannot create axes"),
        ({"shard_shape": (12, 16, 16)}, "whole multiples"),
        ({"shape": (0, 4, 4)}, "positive extents"),
    ],
)
def test_bad_creation_is_refused(tmp_path, options, message):
    with pytest.raises(VolumeError, match=message):
        create(tmp_path / "a.zarr", **options)
    assert not (tmp_path / "a.zarr").exists()


def test_existing_volumes_are_kept_unless_told(tmp_path):
    create(tmp_path / "a.zarr").write(PART, noise(PART.shape))
    with pytest.raises(VolumeError, match="exists already"):
        create(tmp_path / "a.zarr")
    assert open_volume(tmp_path / "a.zarr").read(PART).any()
    assert not create(tmp_path / "a.zarr", overwrite=True).read(PART).any()


@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [
        ((3,), None, "cannot read axes None"),
        ((3, 4, 5), "xyz", "cannot read axes 'xyz'"),
        ((3, 4, 5), "yx", "name 2 axes"),
        ((2, 1, 3, 4, 5), None, "2 time points"),
    ],
)
def test_wrong_axes_are_refused(tmp_path, shape, axes, message):
    zarr.create_array(tmp_path / "a.zarr", data=noise(shape))
    with pytest.raises(VolumeError, match=message):
        open_volume(tmp_path / "a.zarr", axes=axes)


def test_levels_are_for_pyramids(tmp_path):
    with pytest.raises(VolumeError, match="level 0 only; got level 2"):
        open_volume(create(tmp_path / "a.zarr").uri, level=2)


def test_text_is_no_volume(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(3, 4), dtype="U3")
    with pytest.raises(VolumeError, match="expected integers or floats"):
        open_volume(tmp_path / "a.zarr")


def test_missing_volumes_name_what_is_near(tmp_path):
    create(tmp_path / "nuclei.zarr")
    with pytest.raises(VolumeNotFoundError, match=r"nucleii\.zarr.*holds nuclei\.zarr"):
        open_volume(tmp_path / "nucleii.zarr")
    with pytest.raises(FileNotFoundError, match="'nowhere' is missing"):
        open_volume(tmp_path / "nowhere" / "a.zarr")
    zarr.create_group(tmp_path / "g.zarr").create_array("raw", data=noise((5, 6, 7)))
    with pytest.raises(VolumeNotFoundError, match=r"holds raw \(5x6x7 uint16\)"):
        open_volume(tmp_path / "g.zarr" / "row")
    assert not (tmp_path / "nowhere").exists()


def test_other_files_are_no_volume(tmp_path):
    (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE")
    for path, inside in ((tmp_path, ", or name the volume inside: a.czi."), (tmp_path / "a.czi", ".")):
        with pytest.raises(VolumeError) as error:
            open_volume(path)
        assert str(error.value) == f"{path}: is none of {', '.join(FORMATS)}; convert it, to OME-Zarr or TIFF{inside}"


def test_damaged_metadata_is_named(tmp_path):
    create(tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_ty')
    with pytest.raises(VolumeError, match="metadata cannot be read"):
        open_volume(tmp_path / "a.zarr")


def test_addresses_that_fsspec_reaches_are_opened():
    zarr.create_array("memory://spoco/a.zarr", data=noise((5, 6, 7)), overwrite=True)
    volume = open_volume("memory://spoco/a.zarr")
    np.testing.assert_array_equal(volume.read(Box.of_shape((5, 6, 7))), noise((5, 6, 7)))
    with pytest.raises(VolumeNotFoundError, match="check the address"):
        open_volume("memory://spoco/b.zarr")


def test_addresses_without_their_library_say_so():
    with pytest.raises(VolumeError, match=r"cannot be reached from here .*[iI]nstall"):
        open_volume("abfs://container/a.zarr")


@pytest.mark.parametrize("shape", [(500, 500, 500), (1, 3000, 3000), (3, 17, 4000), (5, 5, 5)])
@pytest.mark.parametrize("dtype", ["uint8", "uint64"])
def test_chosen_chunks_are_small_and_cover_small_axes(shape, dtype):
    chunk = choose_chunks(shape, dtype)
    assert np.prod(chunk) <= 2**18
    assert np.prod(chunk) * np.dtype(dtype).itemsize <= 2**20
    assert all(c < 2 * s for c, s in zip(chunk, shape, strict=True))
    # either the bytes are used up, or the whole volume is one chunk
    assert 2 * np.prod(chunk) > min(2**18, 2**20 // np.dtype(dtype).itemsize) or all(np.array(chunk) >= shape)
