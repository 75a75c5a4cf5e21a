from __future__ import annotations

import numpy as np
import pytest
import torch

from spoco_blocks.grid import Box
from spoco_blocks.learn.mirrored import Mirrored
from spoco_blocks.learn.network import EmbeddingNetwork
from spoco_blocks.learn.network_plan import plan_network
from spoco_blocks.learn.predict import Predictor

SMALL = {"in_channels": 1, "embedding_channels": 3, "width": 4, "levels": 2}


def predictor(voxel_size=(1.0, 1.0, 1.0), *, planar=False):
    torch.manual_seed(0)
    plan = plan_network(voxel_size, **SMALL, affinities=True, planar=planar)
    network = EmbeddingNetwork(plan).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return Predictor(network)


def raw_of(shape):
    return np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)


@pytest.mark.parametrize("planar", [False, True])
def test_a_mirror_image_gets_the_mirrored_prediction(planar):
    plain = predictor(planar=planar)
    mean = Mirrored(plain)
    stride = plain.network.plan.stride
    shape = (1 if planar else 4 * stride[0], 8 * stride[1], 8 * stride[2])
    raw = raw_of(shape)
    expected = mean(raw)
    for axis in (1, 2) if planar else (0, 1, 2):
        found = mean(np.ascontiguousarray(np.flip(raw, axis + 1)))
        np.testing.assert_allclose(np.flip(found.foreground, axis), expected.foreground, atol=1e-5)
        for number, offset in enumerate(plain.network.plan.offsets):
            turned = np.flip(found.affinities[number], axis)
            # Of a pair of voxels the other one comes first in the mirror image.
            moved = np.roll(turned, -offset[axis], axis)
            inside = [slice(0, max(0, n - o)) for n, o in zip(shape, offset, strict=True)]
            np.testing.assert_allclose(moved[tuple(inside)], expected.affinities[number][tuple(inside)], atol=1e-5)
    swapped = mean(np.ascontiguousarray(raw.transpose(0, 1, 3, 2)))
    np.testing.assert_allclose(swapped.foreground.transpose(0, 2, 1), expected.foreground, atol=1e-5)
    assert np.abs(expected.foreground - plain(raw).foreground).max() > 1e-3


def test_embeddings_are_those_of_the_array_itself():
    plain = predictor()
    raw = raw_of((8, 16, 16))
    np.testing.assert_allclose(Mirrored(plain)(raw).embeddings, plain(raw).embeddings, atol=1e-6)


@pytest.mark.parametrize("planar", [False, True])
def test_blocks_do_not_show(planar):
    mean = Mirrored(predictor(planar=planar))
    plan = mean.network.plan
    shape = (1 if planar else 51, 117, 93)
    raw, halo = raw_of(shape), mean.halo
    whole = mean(raw)
    for block in (Box((0, 0, 0), (1 if planar else 8, 8, 8)), Box((0, 56, 48), (shape[0], 64, 93))):
        start = tuple(max(0, a - h) // s * s for a, h, s in zip(block.start, halo, plan.stride, strict=True))
        stop = tuple(min(b + h, n) for b, h, n in zip(block.stop, halo, shape, strict=True))
        seen = Box(start, stop)
        found = mean(np.ascontiguousarray(raw[:, *seen.slices]), block.relative_to(seen.start))
        np.testing.assert_allclose(found.foreground, whole.foreground[block.slices], atol=1e-5)
        np.testing.assert_allclose(found.affinities, whole.affinities[:, *block.slices], atol=1e-5)
        assert mean.memory_bytes(seen.shape, block) > found.affinities.nbytes


def test_planes_have_fewer_images_than_volumes():
    assert len(Mirrored(predictor(planar=True))._images) == 8
    assert len(Mirrored(predictor())._images) == 16
    assert len(Mirrored(predictor((8.0, 1.0, 1.0)))._images) == 8
    # Sections seen edgewise: not alike along y and x.
    assert len(Mirrored(predictor((1.0, 1.0, 8.0)))._images) == 4
