"""Geometry moves raw data and labels together, keeps ids, and never mixes what the microscope kept apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage
from scipy.interpolate import BSpline

from spoco_blocks.learn import views
from spoco_blocks.learn.label_values import IGNORE
from spoco_blocks.learn.network_plan import isotropic_axes
from spoco_blocks.learn.views import affine, sample, turn, warp
from spoco_blocks.settings.views import ViewSettings

STILL = ViewSettings(warp_probability=1, rotation_degrees=0, scale=0, elastic_voxels=0)
STRONG = ViewSettings(warp_probability=1, rotation_degrees=40, scale=0.3, elastic_voxels=4, elastic_spacing_voxels=16)
FINE, COARSE, PLANAR = ((8.0, 8.0, 8.0), False), ((40.0, 4.0, 4.0), False), ((1.0, 1.0, 1.0), True)
EVERYWHERE = (True, True, True)
seeds = st.integers(0, 2**32)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ball(shape, voxel_size, radius=7.0):
    """Raw data of a smooth ball that is above 0.5 exactly where its label is."""
    positions = np.stack(np.meshgrid(*[np.arange(s) - (s - 1) / 2 for s in shape], indexing="ij"), -1)
    distance = np.linalg.norm(positions * np.array(voxel_size) / min(voxel_size), axis=-1)
    raw = 1 / (1 + np.exp(distance - radius))
    return torch.from_numpy(raw).float()[None, None], torch.from_numpy((raw > 0.5).astype(np.int64))[None]


@pytest.mark.parametrize("isotropic", [(True, True, True), (False, True, True)])
@pytest.mark.parametrize("depth", [4, 1])
def test_turning_keeps_raw_and_labels_together(isotropic, depth):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, (depth, 6, 6)).astype(np.int32)
    raw = labels[None].astype(np.float32)
    seen = set()
    for _ in range(40):
        turned_raw, turned = turn(raw, labels, isotropic, rng)
        np.testing.assert_array_equal(torch.from_numpy(turned_raw)[0], torch.from_numpy(turned))
        assert turned.shape == labels.shape
        assert sorted(turned.ravel()) == sorted(labels.ravel())
        seen.add(turned.tobytes())
        if not isotropic[0]:
            assert {tuple(sorted(s.ravel())) for s in turned} == {tuple(sorted(s.ravel())) for s in labels}
    assert len(seen) >= 8


def test_axes_that_share_the_finest_voxel_size():
    assert isotropic_axes((1.4, 1, 1), False) == (True, True, True)
    assert isotropic_axes((4, 1, 1.2), False) == (False, True, True)
    assert isotropic_axes((1, 4, 4), True) == (False, True, True)


@pytest.mark.parametrize(("voxel_size", "planar"), [FINE, COARSE, PLANAR])
def test_a_warp_without_strength_changes_nothing(voxel_size, planar):
    raw, labels = torch.randn(2, 2, 1 if planar else 5, 9, 12), torch.randint(-2, 9, (2, 1 if planar else 5, 9, 12))
    warped, moved = warp(raw, labels, STILL, voxel_size, planar, seeded())
    torch.testing.assert_close(warped, raw, atol=1e-4, rtol=0)
    assert torch.equal(moved, labels)
    same = warp(raw, labels, STRONG.model_copy(update={"warp_probability": 0.0}), voxel_size, planar, seeded())
    assert same[0] is raw
    assert same[1] is labels


@pytest.mark.parametrize("plane", [(0, 1), (0, 2), (1, 2)])
def test_a_rotation_by_90_degrees_is_a_quarter_turn(plane):
    labels = torch.randint(0, 2**40, (1, 7, 7, 7))
    raw = torch.randn(1, 2, 7, 7, 7)
    degrees = torch.tensor([[90.0 * (p == plane) for p in views.PLANES]])
    matrices = affine(degrees, torch.ones(1), torch.ones(3), EVERYWHERE)
    warped, moved = sample(raw, labels, views._sources(matrices, torch.zeros(1, 3, 7, 7, 7), EVERYWHERE))
    assert torch.equal(moved, torch.rot90(labels, 1, [axis + 1 for axis in plane]))
    torch.testing.assert_close(warped, torch.rot90(raw, 1, [axis + 2 for axis in plane]), atol=1e-4, rtol=0)


@settings(max_examples=40, deadline=None)
@given(seeds, st.tuples(*[st.floats(1, 8)] * 3), st.booleans())
def test_affine_keeps_physical_shapes_and_leaves_coarse_axes(seed, voxel_size, planar):
    moving = isotropic_axes(voxel_size, planar)
    spacing, factor = torch.tensor(voxel_size), torch.tensor([1.3])
    matrix = affine(360 * torch.rand(1, 3, generator=seeded(seed)), factor, spacing, moving)[0]
    physical = matrix * spacing[:, None] / spacing
    moves = torch.tensor(moving)
    expected = torch.where(moves, factor, torch.ones(1))
    torch.testing.assert_close(physical @ physical.t(), torch.diag(expected**2), atol=1e-4, rtol=0)
    assert torch.equal(matrix[~moves], torch.eye(3)[~moves])
    assert torch.equal(matrix[:, ~moves], torch.eye(3)[:, ~moves])


@pytest.mark.parametrize(("voxel_size", "planar"), [FINE, COARSE, PLANAR])
@pytest.mark.parametrize("seed", range(5))
def test_raw_and_labels_move_together(voxel_size, planar, seed):
    shape = (1, 40, 40) if planar else (24, 40, 40) if voxel_size == FINE[0] else (8, 40, 40)
    raw, labels = ball(shape, voxel_size)
    warped, moved = warp(raw, labels, STRONG, voxel_size, planar, seeded(seed))
    assert (moved != labels).sum() > 20
    object_, seen = (moved[0] == 1).numpy(), moved[0].numpy() != IGNORE
    border = ndimage.binary_dilation(object_) ^ ndimage.binary_erosion(object_)
    wrong = (warped[0, 0].numpy() > 0.5) != object_
    assert not (wrong & ~border & seen).any()
    assert wrong.sum() < 0.5 * border.sum()


def test_labels_whose_source_is_outside_are_ignored_and_raw_goes_on_as_its_border():
    raw, labels = torch.randn(1, 1, 4, 5, 6), torch.randint(1, 9, (1, 4, 5, 6))
    places = torch.stack(torch.meshgrid(*[torch.arange(s).float() for s in (4, 5, 6)], indexing="ij"))[None]
    warped, moved = sample(raw, labels, places + torch.tensor([0.0, 2.0, -1.0]).view(1, 3, 1, 1, 1))
    assert torch.equal(moved[:, :, :3, 1:], labels[:, :, 2:, :5])
    assert (moved[:, :, 3:] == IGNORE).all()
    assert (moved[:, :, :, 0] == IGNORE).all()
    rows, columns = torch.tensor([2, 3, 4, 4, 4]), torch.tensor([0, 0, 1, 2, 3, 4])
    torch.testing.assert_close(warped, raw[..., rows[:, None], columns], atol=1e-5, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    seeds,
    st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 12), st.integers(1, 12)),
    st.tuples(*[st.sampled_from([1.0, 1.3, 5.0])] * 3),
    st.booleans(),
    st.sampled_from([torch.int32, torch.int64]),
)
def test_ids_survive_whatever_the_shape(seed, shape, voxel_size, planar, dtype):
    ids = torch.tensor([-2, -1, 0, 1, 2**24 + 1, 2**31 - 1] + [2**53 + 1] * (dtype == torch.int64), dtype=dtype)
    labels = ids[torch.randint(len(ids), shape, generator=seeded(seed))]
    raw = torch.rand(shape[0], 2, *shape[1:], generator=seeded(seed))
    kept = raw.clone(), labels.clone()
    warped, moved = warp(raw, labels, STRONG, voxel_size, planar, seeded(seed))
    assert (warped.shape, moved.shape, warped.dtype, moved.dtype) == (raw.shape, labels.shape, torch.float32, dtype)
    for before, after in zip(labels, moved, strict=True):
        assert set(after.unique().tolist()) <= set(before.unique().tolist()) | {IGNORE}
    assert warped.min() >= raw.min() - 1e-5
    assert warped.max() <= raw.max() + 1e-5
    assert torch.equal(raw, kept[0])
    assert torch.equal(labels, kept[1])


@pytest.mark.parametrize(("voxel_size", "planar"), [COARSE, PLANAR])
def test_planes_are_never_mixed(voxel_size, planar):
    labels = torch.arange(6).view(1, 6, 1, 1).expand(3, 6, 30, 30).contiguous()
    y = torch.arange(30.0).view(30, 1).expand_as(labels)
    raw = torch.stack([2.0**labels, y], 1)
    warped, moved = warp(raw, labels, STRONG, voxel_size, planar, seeded())
    assert ((moved == labels) | (moved == IGNORE)).all()
    torch.testing.assert_close(warped[:, 0], raw[:, 0], rtol=1e-6, atol=0)
    assert ((warped[:, 1] - y).abs().amax((1, 2, 3)) > 2).all()


def test_every_sample_is_drawn_by_itself_and_only_from_the_generator():
    raw, labels = ball((16, 20, 20), (1, 1, 1), 5.0)
    raw, labels = raw.repeat(40, 1, 1, 1, 1), labels.repeat(40, 1, 1, 1)
    half = STRONG.model_copy(update={"warp_probability": 0.5})
    before = torch.random.get_rng_state()
    first, again = (warp(raw, labels, half, *FINE, seeded(3)) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], warp(raw, labels, half, *FINE, seeded(4))[0])
    unchanged = sum(torch.equal(a, b) for a, b in zip(first[0], raw, strict=True))
    assert 8 < unchanged < 32
    assert len({sample.numpy().tobytes() for sample in first[0]}) == 41 - unchanged


@pytest.mark.parametrize("step", [0.07, 0.25, 1.0, 2.3])
def test_the_basis_is_that_of_a_cubic_b_spline(step):
    basis = views._cubic_basis(9, step).numpy()
    nodes = basis.shape[1]
    oracle = BSpline.design_matrix(np.arange(9) * step, np.arange(-3, nodes + 1), 3).toarray()
    np.testing.assert_allclose(basis, oracle, atol=1e-5)


def test_a_coarse_axis_in_the_plane_stays_too():
    labels = torch.arange(6).expand(1, 12, 12, 6).contiguous()
    raw = labels[:, None].float()
    warped, moved = warp(raw, labels, STRONG, (1, 1, 4), False, seeded())
    torch.testing.assert_close(warped, raw, atol=1e-4, rtol=0)
    assert ((moved == labels) | (moved == IGNORE)).all()


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from([(1.0, 1.0, 1.0), (1.4, 1.0, 1.2)]))
def test_elastic_displacement_is_bounded_in_nm_and_never_folds(seed, voxel_size):
    chosen, spacing = ViewSettings(elastic_voxels=2, elastic_spacing_voxels=8), torch.tensor(voxel_size)
    shape = (14, 18, 18)
    moved = views._draw_displacement(1, chosen, spacing, shape, seeded(seed), torch.device("cpu"))
    physical = moved[0] * spacing.view(3, 1, 1, 1)
    assert 0.3 < physical.abs().max() <= 2
    slopes = torch.stack([torch.stack(torch.gradient(part, spacing=voxel_size)) for part in physical])
    jacobian = torch.eye(3) + slopes.permute(2, 3, 4, 0, 1)
    assert torch.linalg.det(jacobian).min() > 0


def test_elastic_displacement_is_alike_along_all_axes():
    spacing = torch.tensor([1.4, 1.0, 1.0])
    moved = views._draw_displacement(60, STRONG, spacing, (15, 20, 20), seeded(), torch.device("cpu"))
    physical = (moved * spacing.view(3, 1, 1, 1)).std((0, 2, 3, 4))
    torch.testing.assert_close(physical, physical.mean().expand(3), rtol=0.1, atol=0)


def test_a_displacement_that_folds_is_refused():
    with pytest.raises(ValidationError, match=r"elastic_voxels of 5 folds tissue over itself; use .* here 4"):
        ViewSettings(elastic_voxels=5, elastic_spacing_voxels=16)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_same_seed_warps_alike_on_a_gpu():
    raw, labels = ball((16, 24, 24), (1, 1, 1))
    here = warp(raw, labels, STRONG, *FINE, seeded(1))
    there = warp(raw.cuda(), labels.cuda(), STRONG, *FINE, seeded(1))
    torch.testing.assert_close(there[0].cpu(), here[0], atol=1e-3, rtol=0)
    assert (there[1].cpu() != here[1]).float().mean() < 1e-3
