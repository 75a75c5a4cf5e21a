from __future__ import annotations

import pickle

import h5py
import numpy as np
import pytest

from spoco_blocks.errors import VolumeError, VolumeNotFoundError
from spoco_blocks.grid import Box
from spoco_blocks.volumes import open_volume

SHAPE = (6, 20, 30)
BOX = Box((1, 2, 3), (5, 20, 17))
RAW = np.random.default_rng(0).integers(0, 60000, SHAPE).astype(np.uint16)


@pytest.fixture(params=[".h5", ".hdf5", ".hdf"])
def path(tmp_path, request):
    path = tmp_path / f"cells{request.param}"
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=RAW, chunks=(4, 8, 8), compression="gzip")
        file.create_dataset("deep/er/labels", data=RAW.astype(">u4"))
        file.create_dataset("stack", data=np.stack([RAW, RAW + 1]))
        file.create_dataset("section", data=RAW[0])
    return path


def test_reads_chunked_datasets(path):
    volume = open_volume(path / "raw")
    assert (volume.meta.shape, volume.meta.axes, volume.meta.channels) == (SHAPE, "zyx", None)
    assert (volume.meta.chunk_shape, volume.meta.shard_shape) == ((4, 8, 8), (4, 8, 8))
    assert volume.meta.voxel_size_nm is None
    np.testing.assert_array_equal(volume.read(BOX), RAW[BOX.slices])


def test_reads_nested_datasets_of_any_byte_order(path):
    volume = open_volume(f"{path}/deep/er/labels")
    assert volume.meta.dtype == np.dtype("uint32")
    assert volume.meta.chunk_shape == (1, 1, 30)
    np.testing.assert_array_equal(volume.read(BOX), RAW[BOX.slices])
    assert open_volume(volume.uri).meta == volume.meta


def test_reads_channels_and_sections(path):
    np.testing.assert_array_equal(open_volume(path / "stack").read(BOX)[1], RAW[BOX.slices] + 1)
    section = open_volume(path / "section")
    assert section.meta.shape == (1, 20, 30)
    np.testing.assert_array_equal(section.read(Box((0, 1, 2), (1, 5, 9))), RAW[:1, 1:5, 2:9])


def test_pickles_and_keeps_no_file_open(path):
    volume = pickle.loads(pickle.dumps(open_volume(path / "raw", axes="nyx")))
    np.testing.assert_array_equal(volume.read(BOX), RAW[BOX.slices])
    assert volume.meta.axes == "nyx"
    with h5py.File(path, "a") as file:  # HDF5 refuses this while the file is open for reading
        file.attrs["touched"] = True


@pytest.mark.parametrize("holder", ["/", "raw"])
def test_attributes_state_voxel_size_and_axes(path, holder):
    with h5py.File(path, "a") as file:
        file[holder].attrs["voxel_size_nm"] = [50, 4.6, 4.6]
        file[holder].attrs["axes"] = "NYX"
    volume = open_volume(path / "raw")
    assert volume.meta.voxel_size_nm == (50, 4.6, 4.6)
    assert volume.meta.axes == "nyx"
    given = open_volume(path / "raw", axes="zyx", voxel_size_nm=(1, 2, 3))
    assert (given.meta.axes, given.meta.voxel_size_nm) == ("zyx", (1, 2, 3))


def test_voxel_sizes_in_microns_are_known_too(path):
    with h5py.File(path, "a") as file:
        file.attrs["voxel_size_nm"] = [9, 9, 9]
        file["raw"].attrs["element_size_um"] = [2, 0.5, 0.5]
    assert open_volume(path / "raw").meta.voxel_size_nm == (2000, 500, 500)
    with h5py.File(path, "a") as file:
        file["raw"].attrs["voxel_size_nm"] = [1, 2, 3]
    assert open_volume(path / "raw").meta.voxel_size_nm == (1, 2, 3)


@pytest.mark.parametrize("size", [[np.nan, 1, 1], [1, 2], "about 5", [0, 1, 1]])
def test_voxel_sizes_that_are_none(path, size):
    with h5py.File(path, "a") as file:
        file.attrs["voxel_size_nm"] = size
    assert open_volume(path / "raw").meta.voxel_size_nm is None


def test_a_single_dataset_needs_no_name(tmp_path):
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["group/raw"] = RAW
    assert open_volume(tmp_path / "one.h5").uri == f"{tmp_path}/one.h5/group/raw"


def test_errors_say_what_is_there(path, tmp_path):
    with pytest.raises(VolumeNotFoundError, match=r"no dataset 'rw'.*raw \(6x20x30 uint16\)"):
        open_volume(path / "rw")
    with pytest.raises(
        VolumeNotFoundError, match=r"names no dataset; .*Add one to the path: .*cells\.(h5|hdf5|hdf)/deep/er/labels\."
    ):
        open_volume(path)
    with pytest.raises(VolumeNotFoundError, match="nothing is stored there"):
        open_volume(tmp_path / "none.h5" / "raw")
    with pytest.raises(VolumeError, match="level 0 only"):
        open_volume(path / "raw", level=1)
    with pytest.raises(VolumeError, match="name 2 axes"):
        open_volume(path / "raw", axes="yx")
    with pytest.raises(VolumeError, match="read only"):
        open_volume(path / "raw").write(BOX, RAW[BOX.slices])
    with pytest.raises(VolumeError, match="outside"):
        open_volume(path / "raw").read(Box((0, 0, 0), (7, 1, 1)))
    (tmp_path / "torn.h5").write_bytes(path.read_bytes()[:300])
    with pytest.raises(VolumeError, match="cannot be read as HDF5"):
        open_volume(tmp_path / "torn.h5" / "raw")
