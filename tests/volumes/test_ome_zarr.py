from __future__ import annotations

import pickle

import h5py
import numpy as np
import ome_zarr_models
import pytest
import zarr
from ome_zarr_models.v04.image_label import ImageLabel as ImageLabel04
from ome_zarr_models.v05.image import Image as Image05
from ome_zarr_models.v05.image_label import ImageLabel as ImageLabel05

from spoco_blocks.errors import VolumeError, VolumeNotFoundError
from spoco_blocks.grid import Box
from spoco_blocks.volumes import create_ome_zarr, find_pyramid, open_volume

SHAPE = (9, 30, 33)
FACTORS = [(1, 2, 2), (2, 2, 2)]
SHAPES = [(9, 30, 33), (9, 15, 17), (5, 8, 9)]
SIZES = [(50.0, 4.5, 5.0), (50.0, 9.0, 10.0), (100.0, 18.0, 20.0)]
VERSIONS = ["0.4", "0.5"]


def noise(shape, dtype="uint16"):
    return (np.random.default_rng(0).random(shape) * 200).astype(dtype)


def create(uri, version="0.5", **options):
    defaults = {
        "shape": SHAPE,
        "dtype": "uint16",
        "chunk_shape": (4, 8, 8),
        "shard_shape": (8, 16, 16) if version == "0.5" else None,
        "voxel_size_nm": SIZES[0],
        "levels": 3,
        "factors": FACTORS,
        "is_label": False,
        "name": "cells",
    }
    return create_ome_zarr(str(uri), version=version, **{**defaults, **options})


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("channels", [None, 2])
@pytest.mark.parametrize("dtype", ["uint8", "uint64", "float32"])
def test_every_level_is_read_as_written(tmp_path, version, channels, dtype):
    uri = tmp_path / "x.zarr"
    leading = () if channels is None else (channels,)
    created = create(uri, version, channels=channels, dtype=dtype)
    assert [v.meta.shape for v in created] == SHAPES
    for level, volume in enumerate(created):
        volume.write(Box.of_shape(SHAPES[level]), noise((*leading, *SHAPES[level]), dtype))
    for level, (shape, size) in enumerate(zip(SHAPES, SIZES, strict=True)):
        by_level = open_volume(uri, level=level)
        assert by_level.uri == f"{uri}/{level}"
        for volume in (by_level, open_volume(by_level.uri), pickle.loads(pickle.dumps(by_level)), created[level]):
            assert (volume.uri, volume.meta) == (by_level.uri, by_level.meta)
            np.testing.assert_array_equal(volume.read(Box.of_shape(shape)), noise((*leading, *shape), dtype))
        assert by_level.meta.voxel_size_nm == pytest.approx(size)
        assert by_level.meta.chunk_shape == (4, 8, 8)
        assert by_level.meta.shard_shape == ((8, 16, 16) if version == "0.5" else (4, 8, 8))
        assert by_level.meta.axes == ("zyx" if channels is None else "czyx")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("channels", [None, 2])
@pytest.mark.parametrize("size", [SIZES[0], None])
def test_images_follow_the_specification(tmp_path, version, channels, size):
    create(tmp_path / "x.zarr", version, channels=channels, voxel_size_nm=size)
    group = zarr.open_group(tmp_path / "x.zarr", mode="r")
    model = ome_zarr_models.open_ome_zarr(group)
    assert (model.ome_zarr_version, group.metadata.zarr_format) == (version, 2 if version == "0.4" else 3)
    multiscale = (model.attributes if version == "0.4" else model.attributes.ome).multiscales[0]
    assert [axis.name for axis in multiscale.axes] == (["c"] if channels else []) + ["z", "y", "x"]
    assert {axis.unit for axis in multiscale.axes if axis.type == "space"} == {"nanometer" if size else None}
    translation = multiscale.datasets[2].coordinateTransformations[1].translation
    assert translation[-3:] == pytest.approx([0.5 * s * f for s, f in zip(size or (1, 1, 1), (1, 3, 3), strict=True)])


@pytest.mark.parametrize("version", VERSIONS)
def test_labels_join_their_image(tmp_path, version):
    create(tmp_path / "x.zarr", version)
    for name in ("nuclei", "cells"):
        create(tmp_path / "x.zarr" / "labels" / name, version, is_label=True, name=name, dtype="uint32")
    labels = ome_zarr_models.open_ome_zarr(zarr.open_group(tmp_path / "x.zarr" / "labels", mode="r"))
    assert (labels.attributes if version == "0.4" else labels.attributes.ome).labels == ["nuclei", "cells"]
    group = zarr.open_group(tmp_path / "x.zarr" / "labels" / "nuclei", mode="r")
    model = (ImageLabel04 if version == "0.4" else ImageLabel05).from_zarr(group)
    attributes = model.attributes if version == "0.4" else model.attributes.ome
    assert attributes.image_label.source.image == "../../"
    assert open_volume(tmp_path / "x.zarr" / "labels" / "nuclei", level=1).meta.dtype == np.dtype("uint32")
    with pytest.raises(VolumeError, match="open one of them: nuclei, cells"):
        open_volume(tmp_path / "x.zarr" / "labels")
    create(tmp_path / "x.zarr" / "labels" / "cells", version, is_label=True, name="cells", overwrite=True)
    labels = ome_zarr_models.open_ome_zarr(zarr.open_group(tmp_path / "x.zarr" / "labels", mode="r"))
    assert (labels.attributes if version == "0.4" else labels.attributes.ome).labels == ["nuclei", "cells"]


@pytest.mark.parametrize("version", VERSIONS)
def test_labels_stand_alone(tmp_path, version):
    create(tmp_path / "segmentation.zarr", version, is_label=True)
    group = zarr.open_group(tmp_path / "segmentation.zarr", mode="r")
    model = (ImageLabel04 if version == "0.4" else ImageLabel05).from_zarr(group)
    assert (model.attributes if version == "0.4" else model.attributes.ome).image_label.source is None
    assert open_volume(tmp_path / "segmentation.zarr").meta.shape == SHAPE


def test_labels_need_an_image_of_the_same_version(tmp_path):
    with pytest.raises(VolumeError, match="there is no image"):
        create(tmp_path / "x.zarr" / "labels" / "nuclei", is_label=True)
    create(tmp_path / "x.zarr", "0.4")
    with pytest.raises(VolumeError, match="version of the image"):
        create(tmp_path / "x.zarr" / "labels" / "nuclei", "0.5", is_label=True)
    assert not (tmp_path / "x.zarr" / "labels").exists()


def test_version_04_separates_chunks_by_slashes(tmp_path):
    volume = create(tmp_path / "x.zarr", "0.4")[0]
    volume.write(Box.of_shape(SHAPE), noise(SHAPE) + 1)
    assert (tmp_path / "x.zarr" / "0" / "2" / "3" / "4").is_file()


def foreign(path, shape, axes, scales, units=None, version="0.5", common=None):
    """An image as another program writes it."""
    group = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2)
    datasets = []
    for level, scale in enumerate(scales):
        group.create_array(f"s{level}", data=noise(tuple(max(1, s // 2**level) for s in shape)))
        datasets.append({"path": f"s{level}", "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    kinds = {"t": "time", "c": "channel"}
    image = {"axes": [{"name": a, "type": kinds.get(a, "space")} for a in axes], "datasets": datasets}
    for axis, unit in (units or {}).items():
        image["axes"][axes.index(axis)]["unit"] = unit
    if common:
        image["coordinateTransformations"] = [{"type": "scale", "scale": common}]
    body = {"version": version, "multiscales": [image]}
    group.attrs.update({"ome": body} if version == "0.5" else {"multiscales": [{**image, "version": version}]})
    return path


MICROMETRES = {"z": "micrometer", "y": "micrometer", "x": "micrometer"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("shape", "axes", "scale", "units", "presented", "expected", "size"),
    [
        ((4, 6, 8), "zyx", [1, 0.5, 0.25], MICROMETRES, "zyx", (4, 6, 8), (1000, 500, 250)),
        ((1, 2, 4, 6, 8), "tczyx", [9, 7, 1, 0.5, 0.25], MICROMETRES, "czyx", (4, 6, 8), (1000, 500, 250)),
        ((1, 1, 4, 6, 8), "tczyx", [9, 7, 1, 0.5, 0.25], MICROMETRES, "zyx", (4, 6, 8), (1000, 500, 250)),
        ((1, 6, 8), "tyx", [9, 0.5, 0.25], {"y": "millimeter", "x": "angstrom"}, "zyx", (1, 6, 8), (5e5, 5e5, 0.025)),
        ((2, 6, 8), "cyx", [9, 50, 25], {"y": "nanometer", "x": "nanometer"}, "czyx", (1, 6, 8), (50, 50, 25)),
        ((6, 8), "yx", [50, 25], {}, "zyx", (1, 6, 8), None),
        ((4, 6, 8), "zyx", [1, 0.5, 0.25], {"y": "micrometer", "x": "micrometer"}, "zyx", (4, 6, 8), None),
        ((4, 6, 8), "zyx", [1, 1, 1], {**MICROMETRES, "z": "cubit"}, "zyx", (4, 6, 8), None),
    ],
)
def test_axes_and_units_of_foreign_images(tmp_path, version, shape, axes, scale, units, presented, expected, size):
    volume = open_volume(foreign(tmp_path / "f.zarr", shape, axes, [scale], units, version))
    assert (volume.meta.axes, volume.meta.shape) == (presented, expected)
    assert volume.meta.voxel_size_nm == (None if size is None else pytest.approx(size))
    np.testing.assert_array_equal(volume.read(Box.of_shape(expected)).ravel(), noise(shape).ravel())


def test_the_scale_of_the_whole_image_applies_too(tmp_path):
    scales = [[1, 1, 1], [1, 2, 2]]
    path = foreign(tmp_path / "f.zarr", (4, 6, 8), "zyx", scales, MICROMETRES, common=[0.04, 0.02, 0.01])
    assert open_volume(path).meta.voxel_size_nm == pytest.approx((40, 20, 10))
    assert open_volume(path, level=1).meta.voxel_size_nm == pytest.approx((40, 40, 20))


def test_a_voxel_size_given_for_level_0_scales_with_the_level(tmp_path):
    create(tmp_path / "x.zarr")
    for level, expected in enumerate([(30, 8, 6), (30, 16, 12), (60, 32, 24)]):
        volume = open_volume(tmp_path / "x.zarr", level=level, voxel_size_nm=(30, 8, 6))
        assert volume.meta.voxel_size_nm == pytest.approx(expected)
    by_array = open_volume(tmp_path / "x.zarr" / "2", voxel_size_nm=(30, 8, 6))
    assert by_array.meta.voxel_size_nm == pytest.approx((60, 32, 24))


def test_axes_can_be_overridden(tmp_path):
    path = foreign(tmp_path / "f.zarr", (4, 6, 8), "zyx", [[1, 1, 1]], MICROMETRES)
    assert open_volume(path, axes="nyx").meta.independent_images
    with pytest.raises(VolumeError, match="name 2 axes"):
        open_volume(path, axes="yx")


def test_levels_that_are_not_there(tmp_path):
    create(tmp_path / "x.zarr")
    for level in (3, -1):
        with pytest.raises(VolumeError, match=rf"no level {level}; it has 0 \(0\), 1 \(1\), 2 \(2\)"):
            open_volume(tmp_path / "x.zarr", level=level)
    with pytest.raises(VolumeError, match="is the array of one level"):
        open_volume(tmp_path / "x.zarr" / "1", level=2)
    with pytest.raises(VolumeNotFoundError, match=r"holds 0 \(9x30x33 uint16\)"):
        open_volume(tmp_path / "x.zarr" / "7")
    (tmp_path / "x.zarr" / "1" / "zarr.json").unlink()
    with pytest.raises(VolumeNotFoundError, match="names this array for level 1, but it is not there"):
        open_volume(tmp_path / "x.zarr", level=1)


@pytest.mark.parametrize("damage", ["axes", "datasets"])
def test_metadata_of_other_versions_is_refused(tmp_path, damage):
    path = foreign(tmp_path / "f.zarr", (4, 6, 8), "zyx", [[1, 1, 1]])
    group = zarr.open_group(path, mode="r+")
    ome = group.attrs["ome"]
    del ome["multiscales"][0][damage]
    group.attrs["ome"] = ome
    with pytest.raises(VolumeError, match=r"is not that of OME-Zarr 0.4 or 0.5.*holds s0"):
        open_volume(path)


def test_scales_of_the_wrong_length_are_refused(tmp_path):
    with pytest.raises(VolumeError, match="for 3 axes"):
        open_volume(foreign(tmp_path / "f.zarr", (4, 6, 8), "zyx", [[1, 1]]))


def test_time_series_are_refused(tmp_path):
    with pytest.raises(VolumeError, match="3 time points"):
        open_volume(foreign(tmp_path / "f.zarr", (3, 4, 6, 8), "tzyx", [[1, 1, 1, 1]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 2}, "2 levels need 1 factors"),
        ({"levels": 0, "factors": []}, "0 levels need"),
        ({"factors": [(1, 2, 2), (0, 2, 2)]}, "factors of at least 1"),
        ({"shard_shape": (8, 15, 16)}, "whole multiples"),
        ({"version": "0.3"}, "expected one of"),
        ({"version": "0.4", "shard_shape": (8, 16, 16)}, "knows no shards"),
    ],
)
def test_bad_creation_is_refused(tmp_path, options, message):
    with pytest.raises(VolumeError, match=message):
        create(tmp_path / "x.zarr", **options)


def test_existing_images_are_kept_unless_told(tmp_path):
    create(tmp_path / "x.zarr")[0].write(Box.of_shape(SHAPE), noise(SHAPE))
    with pytest.raises(VolumeError, match="exists already"):
        create(tmp_path / "x.zarr")
    assert open_volume(tmp_path / "x.zarr").read(Box.of_shape(SHAPE)).any()
    assert not create(tmp_path / "x.zarr", overwrite=True)[0].read(Box.of_shape(SHAPE)).any()


def test_a_model_of_the_specification_made_elsewhere_opens(tmp_path):
    create(tmp_path / "x.zarr")
    copy = Image05.from_zarr(zarr.open_group(tmp_path / "x.zarr", mode="r"))
    copy.to_zarr(zarr.storage.LocalStore(tmp_path / "copy.zarr"), path="")
    assert open_volume(tmp_path / "copy.zarr", level=2).meta.voxel_size_nm == pytest.approx(SIZES[2])


@pytest.mark.parametrize("version", VERSIONS)
def test_the_image_of_a_uri_is_found(tmp_path, version):
    create(tmp_path / "x.zarr", version)
    for name, level in (("x.zarr", 0), ("x.zarr/0", 0), ("x.zarr/2", 2)):
        pyramid, found = find_pyramid(str(tmp_path / name))
        assert (found, len(pyramid.paths), pyramid.version) == (level, 3, version)
        assert pyramid.group_uri == str(tmp_path / "x.zarr")
        assert pyramid.voxel_size_nm(found) == pytest.approx(SIZES[level])
    zarr.create_array(tmp_path / "plain.zarr", shape=(3, 3, 3), dtype="u1")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["raw"] = noise((3, 3, 3))
    for name in ("plain.zarr", "nothing.zarr", "x.zarr/nothing", "x.h5/raw"):
        assert find_pyramid(str(tmp_path / name)) is None
