"""The network knows how far it sees, and blocks equal the whole."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
from phantoms import eager_network

from spoco_blocks.grid import BlockGrid, triple
from spoco_blocks.learn.network import _Convolution
from spoco_blocks.learn.network_plan import NetworkPlan, plan_network
from spoco_blocks.learn.predict import predict

ISOTROPIC, COARSE_Z = (10.0, 10.0, 10.0), (40.0, 10.0, 10.0)


def plan(voxel_size_nm=ISOTROPIC, *, levels=3, planar=False, channels=1) -> NetworkPlan:
    return plan_network(
        voxel_size_nm,
        in_channels=channels,
        embedding_channels=4,
        width=4,
        levels=levels,
        affinities=True,
        planar=planar,
    )


def test_coarse_axes_are_left_alone_until_voxels_are_isotropic():
    coarse = plan(COARSE_Z, levels=4)
    assert coarse.kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3))
    assert coarse.pools == ((1, 2, 2), (1, 2, 2), (2, 2, 2))
    flat = plan(levels=2, planar=True)
    assert flat.kernels == ((1, 3, 3), (1, 3, 3))
    assert flat.halo[0] == 0
    assert plan().halo == (24, 24, 24)
    assert NetworkPlan.from_dict(asdict(coarse)) == coarse


def test_affinities_reach_far_only_along_fine_axes():
    assert plan().offsets[:3] == ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    assert plan().neighbours == 3
    assert {offset[0] for offset in plan(COARSE_Z).offsets} == {0, 1}
    flat = plan(planar=True)
    assert flat.neighbours == 2
    assert all(offset[0] == 0 for offset in flat.offsets)
    assert flat.outputs == flat.embedding_channels + 1 + len(flat.offsets)


@pytest.mark.parametrize("planned", [plan(), plan(levels=1), plan(levels=2), plan(COARSE_Z, levels=3)])
def test_no_voxel_beyond_the_halo_matters(planned):
    """Replace everything farther than the halo from one voxel: its embedding stays, and within the halo it does not."""
    network = eager_network(planned)
    halo = planned.halo
    shape = triple(2 * h + 2 * s for h, s in zip(halo, planned.stride, strict=True))
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(1, *shape)).astype(np.float32)
    inside = tuple(slice(h, h + s) for h, s in zip(halo, planned.stride, strict=True))
    reach = tuple(slice(0, 2 * h + s) for h, s in zip(halo, planned.stride, strict=True))
    other = rng.normal(size=raw.shape).astype(np.float32)
    other[(slice(None), *reach)] = raw[(slice(None), *reach)]
    before = predict(network, raw).embeddings
    after = predict(network, other).embeddings
    np.testing.assert_allclose(before[(slice(None), *inside)], after[(slice(None), *inside)], atol=1e-5)
    near = raw.copy()
    near[:, halo[0], halo[1], halo[2] + 2] += 1
    assert np.abs(predict(network, near).embeddings - before)[(slice(None), *inside)].max() > 1e-3


@pytest.mark.parametrize("shape", [(41, 37, 50), (24, 64, 33)])
@pytest.mark.parametrize("block", [(16, 16, 16), (8, 32, 20), (64, 64, 64)])
@pytest.mark.parametrize("planned", [plan(levels=2), plan(COARSE_Z, levels=3), plan(levels=2, planar=True)])
def test_blocks_equal_the_whole(planned, block, shape):
    network = eager_network(planned)
    raw = np.random.default_rng(1).normal(size=(1, *shape)).astype(np.float32)
    whole = predict(network, raw)
    grid = BlockGrid(shape, block, planned.halo, planned.stride)
    for item in grid:
        part = predict(network, raw[(slice(None), *item.outer.slices)])
        inner, here = item.inner_local.slices, item.inner.slices
        for name in ("embeddings", "foreground", "affinities"):
            np.testing.assert_allclose(
                getattr(part, name)[(..., *inner)], getattr(whole, name)[(..., *here)], atol=1e-5
            )


def test_an_origin_off_the_stride_is_not_exact():
    """What alignment is for: without it the same halo leaves an error far above rounding."""
    planned = plan(levels=2)
    network = eager_network(planned)
    raw = np.random.default_rng(2).normal(size=(1, 48, 48, 48)).astype(np.float32)
    whole = predict(network, raw).embeddings
    shifted = predict(network, raw[:, 1:, :, :]).embeddings
    middle = slice(20, 24)
    assert np.abs(shifted[:, 19:23, middle, middle] - whole[:, middle, middle, middle]).max() > 1e-2


def test_several_channels_and_images_are_independent():
    network = eager_network(plan(levels=2, planar=True, channels=2))
    raw = np.random.default_rng(3).normal(size=(2, 3, 16, 16)).astype(np.float32)
    together = predict(network, raw).embeddings
    for image in range(3):
        alone = predict(network, raw[:, image : image + 1]).embeddings
        np.testing.assert_allclose(alone[:, 0], together[:, image], atol=1e-5)


def test_prediction_leaves_the_network_as_it_was():
    network = eager_network(plan(levels=2))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    predict(network, np.ones((1, 8, 8, 8), np.float32))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    "shape", [(1, 3, 8, 12, 10), (1, 3, 7, 12, 10), (1, 3, 1, 12, 10), (2, 3, 8, 6, 6), (1, 3, 2, 5, 5)]
)
@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3)])
def test_convolutions_of_single_patches_are_those_of_torch(kernel, shape):
    generator = torch.Generator().manual_seed(0)
    convolution = _Convolution(3, 5, kernel, padding=triple(k // 2 for k in kernel), bias=False)
    found = torch.randn(shape, generator=generator, requires_grad=True)
    expected = found.detach().clone().requires_grad_()
    weight = convolution.weight.detach().clone().requires_grad_()
    output = convolution(found)
    reference = torch.nn.functional.conv3d(expected, weight, padding=convolution.padding)
    torch.testing.assert_close(output, reference, rtol=1e-4, atol=1e-5)
    slope = torch.randn(output.shape, generator=generator)
    output.backward(slope)
    reference.backward(slope)
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(convolution.weight.grad, weight.grad, rtol=1e-4, atol=1e-4)
