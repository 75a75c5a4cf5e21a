"""Blocks and patches equal the whole, for every network that can be chosen."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from phantoms import eager_network

from spoco_blocks.errors import GridError, SettingsError, VolumeError
from spoco_blocks.grid import BlockGrid, Box, triple
from spoco_blocks.learn.network import EmbeddingNetwork
from spoco_blocks.learn.network_plan import plan_network
from spoco_blocks.learn.predict import Prediction, Predictor, predict
from spoco_blocks.settings.network import PRESETS

GEOMETRIES = {"isotropic": (10.0, 10.0, 10.0), "anisotropic": (40.0, 10.0, 10.0), "planar": (10.0, 10.0, 10.0)}
FIELDS = ("embeddings", "foreground", "affinities")


def build(preset: str, geometry: str = "isotropic", *, affinities=True, width: int | None = None) -> EmbeddingNetwork:
    size = PRESETS[preset]
    planned = plan_network(
        GEOMETRIES[geometry],
        in_channels=1,
        embedding_channels=size.embedding_channels,
        width=width or size.width,
        levels=size.levels,
        affinities=affinities,
        planar=geometry == "planar",
    )
    return eager_network(planned)


def noise(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)


def assert_equal(found: Prediction, whole: Prediction, box: Box) -> None:
    for name in FIELDS:
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name)[(..., *box.slices)], rtol=0, atol=1e-5)


def long_shape(network: EmbeddingNetwork, axis: int) -> tuple[int, int, int]:
    """Along one axis more than two halos and no multiple of anything; along the others little."""
    plan = network.plan
    return triple(
        2 * h + 3 * s + 5 if a == axis else s + 1 for a, (h, s) in enumerate(zip(plan.halo, plan.stride, strict=True))
    )


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("preset", PRESETS)
def test_patches_of_each_preset_equal_the_whole(preset, geometry):
    network = build(preset, geometry)
    # The largest network takes a second for a slab of one stride: no more of it than makes two patches.
    z, y, _ = network.plan.stride
    raw = noise((z, y, long_shape(network, axis=2)[2]))
    whole = predict(network, raw)
    found = Predictor(network, patch_voxels=triple(2 * s for s in network.plan.stride), batch=2)(raw)
    assert_equal(found, whole, Box.of_shape(triple(raw.shape[1:])))


@pytest.mark.parametrize("affinities", [True, False])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("preset", PRESETS)
def test_blocks_and_their_patches_equal_the_whole_along_every_axis(preset, geometry, affinities):
    network = build(preset, geometry, affinities=affinities, width=2)
    plan = network.plan
    predictor = Predictor(network, patch_voxels=triple(s + 1 for s in plan.stride), batch=3)
    for axis in range(3):
        raw = noise(long_shape(network, axis))
        whole = predict(network, raw)
        assert whole.affinities.shape == (len(plan.offsets), *raw.shape[1:])
        block_shape = triple(3 * s for s in plan.stride)
        for block in BlockGrid(triple(raw.shape[1:]), block_shape, plan.halo, plan.stride):
            found = predictor(raw[(slice(None), *block.outer.slices)], block.inner_local)
            assert_equal(found, whole, block.inner)


@pytest.mark.parametrize("patch", [(1, 1, 60), (7, 30, 20), (16, 64, 11), (1, 500, 500), None])
@pytest.mark.parametrize("batch", [1, 4])
def test_any_patch_and_batch_give_the_same(patch, batch):
    network = build("tiny", width=3)
    raw = noise((61, 66, 57))
    whole = predict(network, raw)
    box = Box((3, 11, 30), (60, 66, 31))
    predictor = Predictor(network, patch_voxels=patch, batch=batch)
    assert_equal(predictor(raw), whole, Box.of_shape((61, 66, 57)))
    assert_equal(predictor(raw, box), whole, box)


def test_a_patch_sees_what_its_part_needs_and_no_less():
    """What exactness tests can see: with half the halo, patches differ far beyond rounding."""
    network = build("tiny", width=3)
    raw = noise((32, 32, 80))
    whole = predict(network, raw).embeddings[:, :, :, 40:44]
    exact = predict(network, raw[:, :, :, 16:68]).embeddings[:, :, :, 24:28]
    short = predict(network, raw[:, :, :, 32:52]).embeddings[:, :, :, 8:12]
    np.testing.assert_allclose(exact, whole, rtol=0, atol=1e-5)
    assert np.abs(short - whole).max() > 1e-3


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_folding_changes_rounding_only(geometry):
    network = build("base", geometry, width=8)
    raw = noise(triple(4 * s for s in network.plan.stride))
    with torch.inference_mode():
        expected = network(torch.from_numpy(raw)[None])[0]
    found = predict(network, raw)
    channels = network.plan.embedding_channels
    np.testing.assert_allclose(found.embeddings, expected[:channels].numpy(), rtol=0, atol=1e-5)
    probabilities = torch.sigmoid(expected[channels:]).numpy()
    np.testing.assert_allclose(found.foreground, probabilities[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.affinities, probabilities[1:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("shape", [(8, 32, 32), (2, 64, 64), (4, 64, 128), (3, 17, 130)])
def test_bfloat16_differs_by_rounding(geometry, shape):
    network = build("base", geometry, width=8)
    raw = noise(shape)
    wide, half = predict(network, raw), predict(network, raw, bfloat16=True)
    for name in FIELDS:
        a, b = getattr(wide, name), getattr(half, name)
        assert 0 < np.abs(a - b).max() < 0.05 * np.abs(a).max()
        assert np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)) > 0.9995


def test_a_predictor_keeps_its_weights():
    network = build("tiny", width=2)
    raw = noise((8, 8, 8))
    predictor = Predictor(network)
    before = predictor(raw).embeddings
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    np.testing.assert_array_equal(predictor(raw).embeddings, before)
    assert np.abs(predict(network, raw).embeddings - before).max() > 1e-2


def test_threads_compute_one_at_a_time_and_get_their_own():
    predictor = Predictor(build("tiny", width=2), patch_voxels=(8, 8, 8))
    arrays = [noise((16, 20, 24 + 4 * seed), seed) for seed in range(6)]
    expected = [predictor(raw) for raw in arrays]
    inside, most, counting = 0, 0, threading.Lock()
    network = predictor.network

    def counted(x):
        nonlocal inside, most
        with counting:
            inside += 1
            most = max(most, inside)
        output = network(x)
        with counting:
            inside -= 1
        return output

    predictor.network = type(
        "Counted", (), {"plan": network.plan, "dtype": network.dtype, "__call__": staticmethod(counted)}
    )()
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(predictor, arrays * 3))
    assert most == 1
    for one, same in zip(found, expected * 3, strict=True):
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(one, name), getattr(same, name))


def test_memory_that_may_not_be_written_is_read():
    network = build("tiny", width=2)
    raw = noise((8, 9, 10))
    expected = predict(network, raw).embeddings
    raw.flags.writeable = False
    np.testing.assert_array_equal(predict(network, raw).embeddings, expected)
    np.testing.assert_array_equal(predict(network, np.asfortranarray(raw)).embeddings, expected)


def test_what_cannot_be_predicted_is_refused():
    network = build("tiny", width=2)
    with pytest.raises(VolumeError, match=r"takes \(1, z, y, x\) voxels; got \(2, 8, 8, 8\)"):
        predict(network, np.zeros((2, 8, 8, 8), np.float32))
    with pytest.raises(GridError, match="must lie inside"):
        Predictor(network)(noise((8, 8, 8)), Box((0, 0, 0), (8, 8, 9)))
    with pytest.raises(GridError, match="hold a voxel"):
        Predictor(network)(noise((8, 8, 8)), Box((0, 0, 4), (8, 8, 4)))
    with pytest.raises(SettingsError, match="float64"):
        Predictor(network, precision="float64")
    with pytest.raises(SettingsError, match="at least 1"):
        Predictor(network, batch=0)
    with pytest.raises(SettingsError, match="at least 1"):
        Predictor(network, patch_voxels=(0, 8, 8))
