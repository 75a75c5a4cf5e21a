"""The raw data with the levels of the segmentation: what each holds, that it is OME-Zarr, and where none is needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import ome_zarr_models
import pytest
import zarr
from meshes import segmented
from ome_zarr_models.v04.image import Image as Image04
from ome_zarr_models.v05.image import Image as Image05

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.grid import Box
from spoco_blocks.learn.intensity import Normalisation
from spoco_blocks.settings.optional_jobs import RawPyramidJob
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.block_shapes import pyramid_factors
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.plan.stores import image_layout
from spoco_blocks.stages.raw_pyramid import run_raw_pyramid
from spoco_blocks.volumes import create_ome_zarr, create_zarr, open_volume

CUT = [
    ((40, 150, 131), (16, 32, 32), (500.0, 500.0, 500.0), False),
    ((9, 200, 140), (3, 64, 64), (50.0, 4.5, 5.0), False),
    ((4, 130, 300), (1, 32, 64), (1.0, 1.0, 1.0), True),
]


def noise(shape, dtype, seed=0):
    return (np.random.default_rng(seed).random(shape) * 251).astype(dtype)


def planned(folder, raw: np.ndarray, blocks, size_nm, planar=False, source=None, origin=(0, 0, 0)) -> Layout:
    """A results folder as stage `plan` leaves it, for raw data that are written here where no source is given."""
    shape = tuple(s - o for s, o in zip(raw.shape[-3:], origin, strict=True))
    channels = raw.shape[0] if raw.ndim == 4 else None
    if source is None:
        stored = create_zarr(
            str(folder / "raw.zarr"), shape=raw.shape[-3:], dtype=raw.dtype, chunk_shape=(8, 32, 32), channels=channels
        )
        stored.write(Box.of_shape(raw.shape[-3:]), raw)
        source = Source(uri=stored.uri)
    layout = segmented(folder / "results", np.zeros((1, 8, 8), np.uint32), (1, 8, 8), size_nm, planar=planar)
    results, factors = layout.segmentation("s"), pyramid_factors(shape, size_nm, planar)
    plan = Plan.read(Manifest.read(results.manifest("plan")))
    shown = Normalisation((3.0,) * (channels or 1), (200.0,) * (channels or 1))
    plan = replace(
        plan, origin=origin, shape=shape, block_shape=blocks, levels=len(factors) + 1, factors=factors,
        predicted=replace(plan.predicted, raw=source, normalisation=shown),
    )  # fmt: skip
    Manifest("plan", "p", result={"plan": plan.describe()}).write(results.manifest("plan"))
    return layout


def copy(layout: Layout, version="0.5") -> dict:
    return run_raw_pyramid(RawPyramidJob(segmentation="s", ome_zarr_version=version), layout, Execution()).result


def slow_mean(voxels: np.ndarray, factor) -> np.ndarray:
    """Means of windows, those at the far edge of what is there; integers to the nearest, halves to even."""
    padding = [(0, -s % f) for s, f in zip(voxels.shape[-3:], factor, strict=True)]
    padded = np.pad(voxels.astype(float), [(0, 0)] * (voxels.ndim - 3) + padding, constant_values=np.nan)
    cut = [length for s, f in zip(padded.shape[-3:], factor, strict=True) for length in (s // f, f)]
    means = np.nanmean(padded.reshape(*voxels.shape[:-3], *cut), axis=(-5, -3, -1))
    return (np.rint(means) if voxels.dtype.kind in "iu" else means).astype(voxels.dtype)


def opened(uri: str, version: str):
    """The image's group and its one multiscale, as the specification's models read it."""
    group = zarr.open_group(uri, mode="r")
    assert ome_zarr_models.open_ome_zarr(group).ome_zarr_version == version
    model = (Image04 if version == "0.4" else Image05).from_zarr(group)
    (multiscale,) = (model.attributes if version == "0.4" else model.attributes.ome).multiscales
    return group, multiscale


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(("dtype", "channels"), [("uint8", None), ("int16", 2), ("float32", None)])
@pytest.mark.parametrize(("shape", "blocks", "size_nm", "planar"), CUT)
def test_every_level_holds_means_and_is_valid(tmp_path, shape, blocks, size_nm, planar, dtype, channels, version):
    raw = noise((channels, *shape) if channels else shape, dtype) - np.array(100, dtype) * (dtype == "int16")
    layout = planned(tmp_path, raw, blocks, size_nm, planar)
    found = copy(layout, version)
    factors, uri = pyramid_factors(shape, size_nm, planar), layout.segmentation("s").raw_pyramid
    assert (found["uri"], found["copied"], found["levels"]) == (uri, True, len(factors) + 1)
    group, multiscale = opened(uri, version)
    assert [axis.name for axis in multiscale.axes] == [*"c" * bool(channels), *"zyx"]
    assert len(multiscale.datasets) == len(factors) + 1 > 2
    window = np.ones(3)
    for dataset, factor in zip(multiscale.datasets, [(1, 1, 1), *factors], strict=True):
        raw, window = slow_mean(raw, factor) if max(factor) > 1 else raw, window * factor
        stored = group[dataset.path][:]
        assert stored.dtype == raw.dtype
        np.testing.assert_allclose(stored, raw, rtol=1e-6 if raw.dtype.kind == "f" else 0)
        scale, *moved = dataset.coordinateTransformations
        np.testing.assert_allclose(scale.scale[-3:], window * size_nm)
        np.testing.assert_allclose(moved[0].translation[-3:] if moved else 0, (window - 1) / 2 * size_nm)


def test_raw_data_and_segmentation_lie_over_each_other(tmp_path):
    shape, blocks, size_nm, _ = CUT[1]
    layout = planned(tmp_path, noise(shape, "uint8"), blocks, size_nm)
    results, plan = layout.segmentation("s"), Plan.read(Manifest.read(layout.segmentation("s").manifest("plan")))
    copy(layout)
    image = image_layout(plan, "0.5")
    create_ome_zarr(results.segments, dtype="uint32", is_label=True, name="segmentation", overwrite=True, **image)
    (of_raw, raw), (of_labels, labels) = (opened(uri, "0.5") for uri in (results.raw_pyramid, results.segments))
    assert raw.datasets == labels.datasets
    for dataset in raw.datasets:
        assert of_raw[dataset.path].shape == of_labels[dataset.path].shape


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_viewers_are_told_what_is_black_and_white(tmp_path, version):
    raw = noise((2, 4, 80, 80), "uint16")
    copy(layout := planned(tmp_path, raw, (4, 32, 32), (2.0, 1.0, 1.0)), version)
    attributes = zarr.open_group(layout.segmentation("s").raw_pyramid, mode="r").attrs.asdict()
    channels = attributes.get("ome", attributes)["omero"]["channels"]
    windows = [channel["window"] for channel in channels]
    assert windows == [{"min": 0, "max": 65535, "start": 3, "end": 200}] * 2


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_floats_become_those_that_viewers_read(tmp_path, dtype):
    raw = noise((4, 80, 80), dtype)
    copy(layout := planned(tmp_path, raw, (4, 32, 32), (2.0, 1.0, 1.0)))
    stored = open_volume(layout.segmentation("s").raw_pyramid)
    np.testing.assert_array_equal(stored.read(Box.of_shape(raw.shape)), raw.astype(np.float32))


def test_the_copy_starts_where_the_segmentation_does(tmp_path):
    raw = noise((12, 90, 100), "uint8")
    copy(layout := planned(tmp_path, raw, (4, 32, 32), (1.0, 1.0, 1.0), origin=(3, 10, 20)))
    stored = open_volume(layout.segmentation("s").raw_pyramid)
    np.testing.assert_array_equal(stored.read(Box.of_shape((9, 80, 80))), raw[3:, 10:, 20:])


def test_what_is_done_is_kept_until_something_else_is_asked_for(tmp_path):
    raw = noise((8, 80, 80), "uint8")
    layout = planned(tmp_path, raw, (4, 32, 32), (1.0, 1.0, 1.0))
    results = layout.segmentation("s")
    written = []
    for version in ("0.5", "0.5", "0.4"):
        copy(layout, version)
        written.append({path: path.stat().st_mtime_ns for path in Path(results.raw_pyramid).rglob("*")})
        opened(results.raw_pyramid, version)
        np.testing.assert_array_equal(open_volume(results.raw_pyramid).read(Box.of_shape(raw.shape)), raw)
    assert written[0] == written[1] != written[2]
    # Other raw data of the same shape: nothing of the old ones stays.
    planned(tmp_path / "other", other := noise((8, 80, 80), "uint8", seed=1), (4, 32, 32), (1.0, 1.0, 1.0))
    plan = Plan.read(Manifest.read(results.manifest("plan")))
    source = Source(uri=str(tmp_path / "other/raw.zarr"))
    moved = replace(plan, predicted=replace(plan.predicted, raw=source))
    Manifest("plan", "q", result={"plan": moved.describe()}).write(results.manifest("plan"))
    copy(layout, "0.4")
    np.testing.assert_array_equal(open_volume(results.raw_pyramid).read(Box.of_shape(raw.shape)), other)


@pytest.mark.parametrize(
    ("levels", "stated_nm", "level", "downscale", "copied"),
    [
        (2, (4.0, 2.0, 2.0), 0, None, False),
        (2, (4.0, 1.0, 1.0), 1, None, False),
        (2, (4.0, 1.0, 1.0), 0, (1, 2, 2), False),
        (1, (4.0, 2.0, 2.0), 0, None, True),  # No levels.
        (2, None, 0, None, True),  # A viewer would not know where it lies.
        (2, (4.0, 3.0, 3.0), 0, None, True),  # The configuration says another voxel size than the store.
    ],
)
def test_raw_data_that_have_levels_are_not_copied(tmp_path, levels, stated_nm, level, downscale, copied):
    factors = [(1, 2, 2)] * (levels - 1)
    fine = noise((6, 160, 160), "uint8")
    volumes = create_ome_zarr(
        str(tmp_path / "image.zarr"), shape=fine.shape, dtype="uint8", chunk_shape=(6, 64, 64), shard_shape=None,
        voxel_size_nm=stated_nm, levels=levels, factors=factors, is_label=False, name="image",
    )  # fmt: skip
    volumes[0].write(Box.of_shape(fine.shape), fine)
    read = slow_mean(fine, (1, 2, 2)) if level or downscale else fine
    source = Source(uri=str(tmp_path / "image.zarr"), level=level, downscale=downscale)
    layout = planned(tmp_path, read, (6, 32, 32), (4.0, 2.0, 2.0), source=source)
    results = layout.segmentation("s")
    found = copy(layout)
    assert found["copied"] == copied
    assert found["uri"] == (results.raw_pyramid if copied else str(tmp_path / "image.zarr"))
    if copied:
        np.testing.assert_array_equal(open_volume(results.raw_pyramid).read(Box.of_shape(read.shape)), read)
    else:
        assert not (results.root / "raw_pyramid.zarr").exists()
