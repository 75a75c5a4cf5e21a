"""Crops in a model's voxels show the same places as the stored volume, whatever box they are read in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms import store

from spoco_blocks.grid import Box, triple
from spoco_blocks.kernels.downsample import downsample_mean
from spoco_blocks.learn.crops import TrainingVolume
from spoco_blocks.learn.intensity import Normalisation
from spoco_blocks.learn.resample import Resampling, zoom_between
from spoco_blocks.learn.supervision import Supervision
from spoco_blocks.volumes import create_zarr, open_volume

SHAPE = (12, 24, 36)
ZOOMS = [(1.0, 0.5, 0.5), (2.0, 1.0, 1.0), (0.25, 0.7, 1.3), (1 / 3, 1 / 3, 3.0)]


def whole(zoom, region=None) -> tuple[Resampling, Box]:
    resampling = Resampling(zoom, region or Box.of_shape(SHAPE))
    return resampling, resampling.inside(resampling.within)


def value_by_hand(line: np.ndarray, zoom: float, voxel: int) -> float:
    """Give one voxel of a resampled line by a fine sum (shrinking) or between two centres (growing)."""
    if zoom < 1:
        places = (voxel + (np.arange(20000) + 0.5) / 20000) / zoom
        return float(line[np.floor(places).astype(int).clip(0, len(line) - 1)].mean())
    return float(np.interp((voxel + 0.5) / zoom - 0.5, np.arange(len(line)), line))


@pytest.mark.parametrize("zoom", [0.25, 0.3, 0.5, 0.9, 1.0, 1.1, 2.0, 2.5, 4.0])
def test_raw_of_one_axis(zoom):
    line = np.random.default_rng(0).normal(size=SHAPE[2])
    resampling, box = whole((1.0, 1.0, zoom))
    stored = resampling.stored(box)
    raw = np.broadcast_to(line, (1, *SHAPE)).astype(np.float32)[(slice(None), *stored.slices)]
    found = resampling.raw(raw, box)
    assert found.shape == (1, *box.shape)
    expected = [value_by_hand(line, zoom, voxel) for voxel in range(box.stop[2])]
    np.testing.assert_allclose(found[0, 3, 5], expected, atol=2e-3)


def test_shrinking_by_whole_factors_is_the_mean_and_smooth_data_stay():
    raw = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    resampling, box = whole((1.0, 0.5, 0.25))
    np.testing.assert_allclose(resampling.raw(raw[None], box)[0], downsample_mean(raw, (1, 2, 4)), atol=1e-6)
    z, y, x = np.indices(SHAPE, np.float32)
    for zoom in ZOOMS:
        resampling, box = whole(zoom)
        stored = resampling.stored(box)
        for axis, ramp in enumerate((z, y, x)):
            found = resampling.raw(ramp[None][(slice(None), *stored.slices)], box)[0]
            places = (np.indices(box.shape)[axis] + 0.5) / zoom[axis] - 0.5
            middle = tuple(slice(2, -2) if extent > 4 else slice(1, -1) for extent in box.shape)
            np.testing.assert_allclose(
                found[middle], places[middle], atol=0.01 + 0.5 * (zoom[axis] not in (1, 0.5, 0.25))
            )


@pytest.mark.parametrize("zoom", ZOOMS)
def test_labels_are_those_at_the_centres(zoom):
    labels = np.random.default_rng(0).integers(-2, 9, SHAPE).astype(np.int32)
    resampling, box = whole(zoom)
    found = resampling.labels(labels[resampling.stored(box).slices], box)
    for voxel in np.argwhere(np.ones(box.shape, bool))[::7]:
        z, y, x = ((voxel + 0.5) / zoom + 1e-6).astype(int)
        assert found[tuple(voxel)] == labels[z, y, x]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resample")
    rng = np.random.default_rng(0)
    labels = np.repeat(np.repeat(rng.integers(0, 6, (6, 12, 18)), 2, 1), 2, 2).repeat(2, 0).astype(np.uint32)
    raw = rng.integers(0, 200, (2, *SHAPE)).astype(np.uint16)
    return store(folder / "labels.zarr", labels), raw, folder


def training_volume(stored, zoom, region) -> TrainingVolume:
    labels, raw, folder = stored
    uri = str(folder / f"{abs(hash((zoom, region)))}.zarr")
    chunk = {"chunk_shape": (4, 8, 8), "voxel_size_nm": (1.0, 1.0, 1.0)}
    create_zarr(uri, shape=SHAPE, channels=2, dtype="uint16", overwrite=True, **chunk).write(Box.of_shape(SHAPE), raw)
    known = Supervision(
        open_volume(labels), np.arange(1, 4, dtype=np.uint64), region, None, None, False, 0.0, (1, 1, 1), 0
    )
    return TrainingVolume(open_volume(uri), Normalisation((0.0, 0.0), (200.0, 100.0)), known, {}, zoom)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_a_crop_is_a_part_of_the_whole_bit_for_bit(stored, data):
    zoom, region = data.draw(st.sampled_from(ZOOMS)), Box((1, 2, 3), (11, 24, 35))
    volume = training_volume(stored, zoom, region)
    inside = volume.resampling.inside(region)
    raw, labels = volume.read(inside)
    start = triple(data.draw(st.integers(a, b - 1)) for a, b in zip(inside.start, inside.stop, strict=True))
    stop = triple(data.draw(st.integers(a + 1, b)) for a, b in zip(start, inside.stop, strict=True))
    box = Box(start, stop)
    part_raw, part_labels = volume.read(box)
    here = box.relative_to(inside.start).slices
    np.testing.assert_array_equal(part_raw, raw[(slice(None), *here)])
    np.testing.assert_array_equal(part_labels, labels[here])
    assert region.contains(volume.resampling.stored(box))


def test_boxes_and_positions_follow():
    resampling = Resampling((1.0, 0.5, 1.5), Box.of_shape(SHAPE))
    assert resampling.inside(Box((2, 3, 3), (9, 20, 21))) == Box((2, 2, 5), (9, 10, 31))
    assert resampling.inside(Box((2, 3, 3), (3, 4, 4))).size == 0
    np.testing.assert_array_equal(resampling.positions(np.array([[4, 5, 2], [0, 0, 0]])), [[4, 2, 3], [0, 0, 0]])
    assert resampling.lengths((2, 2, 2)) == (2, 4, 2)
    tenth = Box.of_shape((100, 10, 10))
    assert Resampling((0.1, 0.3, 1.0), tenth).inside(tenth).stop == (10, 3, 10)


def test_zoom_is_exactly_one_where_sizes_agree_within_a_hundredth():
    assert zoom_between((40.0, 8.05, 7.95), (40.0, 8.0, 8.0), planar=False) == (1.0, 1.0, 1.0)
    assert zoom_between((40.0, 4.0, 8.2), (40.0, 8.0, 8.0), planar=False) == (1.0, 0.5, 8.2 / 8.0)
    assert zoom_between((1.0, 4.0, 4.0), (7.0, 8.0, 8.0), planar=True) == (1.0, 0.5, 0.5)
