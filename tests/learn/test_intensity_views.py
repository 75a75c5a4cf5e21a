"""Each change of intensity does what it says, to each view by a draw of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from spoco_blocks.learn.intensity_views import _blur, change_intensity, normal_noise
from spoco_blocks.settings.views import ViewSettings

STRENGTHS = (
    "gain",
    "offset",
    "gamma",
    "contrast",
    "blur_voxels",
    "noise",
    "shot_noise",
    "missing_sections",
    "shifted_sections",
)
OFF = ViewSettings(**dict.fromkeys(STRENGTHS, 0))


def only(**strengths) -> ViewSettings:
    return OFF.model_copy(update=strengths)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth(n=1, channels=1, shape=(6, 12, 14), seed=0):
    """Normalised raw data with some structure."""
    noise = np.random.default_rng(seed).normal(size=(n, channels, *shape))
    return torch.from_numpy(1 + 4 * ndimage.gaussian_filter(noise, (0, 0, 1, 1, 1))).float()


def unchanged(views, raw):
    return sum(torch.equal(view, sample) for view, sample in zip(views, raw, strict=True))


@pytest.mark.parametrize("sections", [True, False])
def test_nothing_changes_without_strength(sections):
    raw = smooth(2, 2)
    assert torch.equal(change_intensity(raw, OFF, sections, seeded()), raw)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32),
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 7), st.integers(1, 7)),
    st.booleans(),
)
def test_any_shape_any_seed(seed, shape, sections):
    raw = 3 * torch.randn(shape, generator=seeded(seed))
    kept = raw.clone()
    chosen = ViewSettings(missing_sections=0.5, shifted_sections=0.5)
    view = change_intensity(raw, chosen, sections, seeded(seed))
    assert (view.shape, view.dtype) == (raw.shape, torch.float32)
    assert torch.isfinite(view).all()
    assert torch.equal(raw, kept)
    assert torch.equal(view, change_intensity(raw, chosen, sections, seeded(seed)))


def test_views_are_drawn_for_themselves_and_stay_recognisable():
    raw, generator = smooth(1).repeat(30, 1, 1, 1, 1), seeded()
    before = torch.random.get_rng_state()
    first, second = (change_intensity(raw, ViewSettings(), True, generator) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert len({view.numpy().tobytes() for view in torch.cat([first, second])}) == 60
    correlations = [np.corrcoef(raw[0].ravel(), view.ravel())[0, 1] for view in torch.cat([first, second])]
    assert max(correlations) > 0.99
    assert min(correlations) > 0.6


def test_gain_and_offset_are_linear():
    raw = smooth(200)
    gains = (change_intensity(raw, only(gain=0.25), False, seeded()) / raw).flatten(1)
    torch.testing.assert_close(gains, gains[:, :1].expand_as(gains), rtol=1e-4, atol=0)
    assert 0.75 <= gains.min() < 0.8
    assert 1.2 < gains.max() <= 1.2501
    offsets = (change_intensity(raw, only(offset=0.3), False, seeded()) - raw).flatten(1)
    assert offsets.std(1).max() < 1e-6
    assert -0.3001 <= offsets.min() < -0.27
    assert 0.27 < offsets.max() <= 0.3001


def test_contrast_keeps_the_mean_of_each_channel():
    raw = smooth(200, 2)
    views = change_intensity(raw, only(contrast=0.5), False, seeded())
    torch.testing.assert_close(views.mean((2, 3, 4)), raw.mean((2, 3, 4)), atol=1e-5, rtol=0)
    ratios = views.std((2, 3, 4)) / raw.std((2, 3, 4))
    torch.testing.assert_close(ratios[:, 0], ratios[:, 1])
    assert 0.5 <= ratios.min() < 0.6
    assert 1.4 < ratios.max() <= 1.5001
    both, gain = (change_intensity(raw, only(gain=0.25, contrast=c), False, seeded()) for c in (0.5, 0))
    torch.testing.assert_close(both.mean((2, 3, 4)), gain.mean((2, 3, 4)), atol=1e-4, rtol=0)
    assert 60 < ((ratios[:, 0] - 1).abs() < 1e-5).sum() < 140


def test_gamma_keeps_order_sign_and_the_ends_of_the_range():
    raw = torch.linspace(-3, 7, 101).view(1, 1, 1, 1, 101).repeat(100, 1, 1, 1, 1)
    views = change_intensity(raw, only(gamma=0.25), False, seeded())
    assert (views.diff(dim=-1) > 0).all()
    torch.testing.assert_close(views[..., [20, 60]], raw[..., [20, 60]], atol=1e-5, rtol=0)
    middle = (views[..., 40].ravel() + 1) / 4
    exponents = middle.log2().neg()
    assert 1 / 1.25 - 1e-5 <= exponents.min() < 0.85
    assert 1.2 < exponents.max() <= 1.25 + 1e-5


def test_blur_is_a_gaussian_within_planes():
    raw = smooth(3, 2, (4, 20, 22))
    sigma = torch.tensor([0.8, 0.0, 1.5])
    blurred = _blur(raw, sigma)
    for index in (0, 2):
        radius = 5  # of the widest blur
        deviation = (0, 0, float(sigma[index]), float(sigma[index]))
        oracle = ndimage.gaussian_filter(raw[index].numpy(), deviation, mode="nearest", radius=(0, 0, radius, radius))
        np.testing.assert_allclose(blurred[index], oracle, atol=1e-5)
    assert torch.equal(blurred[1], raw[1])
    views = change_intensity(raw.repeat(20, 1, 1, 1, 1), only(blur_voxels=1.0), False, seeded())
    assert 15 < unchanged(views, raw.repeat(20, 1, 1, 1, 1)) < 45


def test_noise_is_independent_of_brightness_and_shot_noise_is_not():
    raw = torch.tensor([-1.0, 0.0, 3.0]).view(1, 1, 3, 1, 1).repeat(100, 1, 1, 60, 60)
    noise = (change_intensity(raw, only(noise=0.3), False, seeded()) - raw).std((3, 4))[:, 0]
    noisy = noise[:, 0] > 0
    assert 25 < noisy.sum() < 75
    assert noise[:, 0].max() < 0.32
    torch.testing.assert_close(noise[noisy, 0], noise[noisy, 2], rtol=0.15, atol=0)
    shot = (change_intensity(raw, only(shot_noise=0.3), False, seeded()) - raw).std((3, 4))[:, 0]
    noisy = shot[:, 2] > 0
    assert 25 < noisy.sum() < 75
    assert shot[:, 0].max() == 0
    assert shot[:, 2].max() < 0.32
    torch.testing.assert_close(2 * shot[noisy, 1], shot[noisy, 2], rtol=0.15, atol=0)


def test_hashed_noise_is_splitmix64_and_near_enough_to_normal():
    seed, count = 123456789012345678, 100_000
    noise = normal_noise(count, seed, torch.device("cpu"))
    with np.errstate(over="ignore"):
        state = np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    parts = state.view(np.uint16).reshape(count, 4).astype(np.int64).sum(1)
    np.testing.assert_allclose(noise, (parts - 131070) * np.sqrt(3) / 65536, rtol=1e-6)
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.01
    assert abs((noise**4).mean() - 2.7) < 0.1
    assert abs(torch.corrcoef(torch.stack([noise[1:], noise[:-1]]))[0, 1]) < 0.02
    other = normal_noise(count, seed + 1, torch.device("cpu"))
    assert abs(torch.corrcoef(torch.stack([noise, other]))[0, 1]) < 0.02


def test_missing_sections_are_blank_or_repeat_a_neighbour():
    raw = smooth(20, 2, (8, 6, 6))
    views = change_intensity(raw, only(missing_sections=0.3), True, seeded())
    found = {"blank": 0, "repeated": 0, "kept": 0}
    for sample, view in zip(raw, views, strict=True):
        for plane in range(8):
            neighbour = plane - 1 if plane else 1
            if torch.equal(view[:, plane], sample[:, plane]):
                found["kept"] += 1
            elif torch.equal(view[:, plane], sample[:, neighbour]):
                found["repeated"] += 1
            else:
                assert view[:, plane].unique().numel() == 1
                assert -1 <= view[0, plane, 0, 0] <= 3
                found["blank"] += 1
    assert sum(found.values()) == 160
    assert 10 < found["blank"] < 40
    assert 10 < found["repeated"] < 40


def test_shifted_sections_move_within_their_plane():
    raw = smooth(20, 2, (8, 9, 9))
    views = change_intensity(raw, only(shifted_sections=0.3, shift_voxels=2), True, seeded())
    moves = set()
    for sample, view in zip(raw, views, strict=True):
        for plane in range(8):
            padded = np.pad(sample[:, plane].numpy(), ((0, 0), (2, 2), (2, 2)), mode="edge")
            (move,) = [
                (down - 2, right - 2)
                for down in range(5)
                for right in range(5)
                if np.array_equal(padded[:, down : down + 9, right : right + 9], view[:, plane])
            ]
            moves.add(move)
    assert len(moves) > 12
    assert {max(abs(step) for step in move) for move in moves} == {0, 1, 2}


def test_sections_are_left_where_there_are_none():
    lost = only(missing_sections=1.0, shifted_sections=1.0)
    raw = smooth(2, 1, (4, 6, 6))
    assert torch.equal(change_intensity(raw, lost, False, seeded()), raw)
    assert torch.equal(change_intensity(raw[:, :, :1], lost, True, seeded()), raw[:, :, :1])
    assert not torch.equal(change_intensity(raw, lost, True, seeded()), raw)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_same_seed_gives_the_same_view_on_a_gpu():
    raw, chosen = smooth(8, 2), ViewSettings(missing_sections=0.3, shifted_sections=0.3)
    here = change_intensity(raw, chosen, True, seeded())
    torch.testing.assert_close(change_intensity(raw.cuda(), chosen, True, seeded()).cpu(), here, atol=1e-4, rtol=1e-4)
