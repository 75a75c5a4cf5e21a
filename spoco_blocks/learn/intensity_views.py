"""Intensity of a view: drawn for each network, so that the two see different images of the same tissue."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from spoco_blocks.settings.views import ViewSettings

# Gamma, contrast, blur and noise are made to this part of the views, so that data as they are stay common.
CHANGED = 0.5
# What normalisation makes of the volume's dark end, and its range.
DARK, RANGE = -1.0, 4.0


def change_intensity(raw: Tensor, settings: ViewSettings, sections: bool, generator: torch.Generator) -> Tensor:
    """Change blur, gamma, contrast, gain, offset, noise and sections of each sample, by draws of its own.

    Parameters
    ----------
    raw : Tensor
        (n, c, z, y, x) float32 on any device, normalised: the volume's dark end is -1, its bright end 3.
    settings : ViewSettings
        Strengths; 0 switches a change off, and with all of them off `raw` itself is returned.
    sections : bool
        Whether planes are physical sections, of which some may be missing or misaligned.
    generator : torch.Generator
        On the CPU: the same seed draws the same view for every device.

    Returns
    -------
    Tensor
        (n, c, z, y, x) float32; `raw` is left as it is.

    Notes
    -----
    In the order of image formation: optics, response, noise of the detector, handling of the sections. Gamma works on
    (raw + 1) / 4 and keeps the sign of what lies below the dark end. Nothing is clipped. A misaligned section moves in
    `raw` only: the labels stay with the tissue around it.
    """
    changed = raw
    if sections and raw.shape[2] > 1:
        changed = _shift_sections(changed, settings, generator)
    if settings.blur_voxels:
        changed = _blur(changed, _draw(len(raw), 0.0, settings.blur_voxels, generator, 0.0))
    changed = _respond(changed, settings, generator)
    if settings.noise or settings.shot_noise:
        changed = _add_noise(changed, settings, generator)
    if sections and raw.shape[2] > 1:
        changed = _lose_sections(changed, settings, generator)
    return changed


def _draw(count: int, low: float, high: float, generator: torch.Generator, neutral: float | None = None) -> Tensor:
    """Draw (n,) float32 uniformly; where `neutral` is given, only some of them, and it for the others."""
    drawn = low + (high - low) * torch.rand(count, generator=generator)
    if neutral is None:
        return drawn
    return torch.where(torch.rand(count, generator=generator) < CHANGED, drawn, neutral)


def _per_sample(values: Tensor, raw: Tensor) -> Tensor:
    return values.to(raw.device).view(-1, 1, 1, 1, 1)


def _blur(raw: Tensor, sigma: Tensor) -> Tensor:
    """Blur the samples within planes with Gaussians of (n,) standard deviations, 0 = not."""
    chosen = torch.nonzero(sigma)[:, 0]
    if not len(chosen):
        return raw
    radius = math.ceil(3 * float(sigma.max()))
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets / sigma[chosen, None].clamp(min=1e-3)) ** 2)
    weights = (weights / weights.sum(1, keepdim=True)).to(raw.device)
    blurred = raw[chosen.to(raw.device)]
    for axis, pad in ((4, (radius, radius, 0, 0, 0, 0)), (3, (0, 0, radius, radius, 0, 0))):
        padded = functional.pad(blurred, pad, mode="replicate")
        blurred = torch.zeros_like(blurred)
        for step in range(2 * radius + 1):
            blurred.addcmul_(padded.narrow(axis, step, raw.shape[axis]), weights[:, step].view(-1, 1, 1, 1, 1))
    return raw.index_copy(0, chosen.to(raw.device), blurred)


def _respond(raw: Tensor, settings: ViewSettings, generator: torch.Generator) -> Tensor:
    """Apply gamma, then contrast, gain and offset."""
    n = len(raw)
    if settings.gamma:
        bound = math.log1p(settings.gamma)
        exponent = _draw(n, -bound, bound, generator, 0.0).exp()
        if (exponent != 1).any():
            brightness = (raw - DARK) / RANGE
            curved = torch.copysign(brightness.abs().pow(_per_sample(exponent, raw)), brightness)
            raw = curved * RANGE + DARK
    gain = _draw(n, 1 - settings.gain, 1 + settings.gain, generator)
    offset = _per_sample(_draw(n, -settings.offset, settings.offset, generator), raw)
    if settings.contrast:
        contrast = _draw(n, 1 - settings.contrast, 1 + settings.contrast, generator, 1.0)
        mean = raw.mean((2, 3, 4), keepdim=True)
        offset = offset + mean * _per_sample(gain * (1 - contrast), raw)
        gain = gain * contrast
    if not (settings.gain or settings.contrast or settings.offset):
        return raw
    return raw * _per_sample(gain, raw) + offset


def _add_noise(raw: Tensor, settings: ViewSettings, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise whose variance has a constant part and one that grows with brightness, as photon counts do."""
    noise = _draw(len(raw), 0.0, settings.noise, generator, 0.0)
    shot_noise = _draw(len(raw), 0.0, settings.shot_noise, generator, 0.0)
    seed = int(torch.randint(2**62, (1,), generator=generator))
    if not (noise.any() or shot_noise.any()):
        return raw
    deviation = _per_sample(noise, raw)
    if shot_noise.any():
        brightness = ((raw - DARK) / RANGE).clamp_(min=0)
        deviation = brightness.mul_(_per_sample(shot_noise**2, raw)).add_(deviation**2).sqrt_()
    return torch.addcmul(raw, normal_noise(raw.numel(), seed, raw.device).view_as(raw), deviation)


def normal_noise(count: int, seed: int, device: torch.device) -> Tensor:
    """Draw numbers of zero mean and unit variance, the same on every device.

    Parameters
    ----------
    count : int
        How many.
    seed : int
        Which.
    device : torch.device
        Where they are made.

    Returns
    -------
    Tensor
        (count,) float32: the sum of four uniform numbers, near enough to normal, never beyond 3.5.

    Notes
    -----
    Integer hashing (splitmix64) of the position. A draw on the CPU would keep a GPU waiting for the copy, one on the
    GPU would depend on the device.
    """
    state = torch.arange(count, device=device).mul_(-0x61C8864680B583EB).add_(seed)
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        # Shifts of signed integers drag the sign along; splitmix64 wants zeros.
        state.bitwise_xor_((state >> shift).bitwise_and_((1 << (64 - shift)) - 1)).mul_(factor)
    state.bitwise_xor_((state >> 31).bitwise_and_((1 << 33) - 1))
    total = state & 0xFFFF
    for shift in (16, 32, 48):
        total.add_((state >> shift).bitwise_and_(0xFFFF))
    return (total.float() - 2 * 0xFFFF) * (math.sqrt(3) / 2**16)


def _shift_sections(raw: Tensor, settings: ViewSettings, generator: torch.Generator) -> Tensor:
    """Move some planes by a few voxels, continued by their border."""
    n, _, depth, height, width = raw.shape
    shifted = torch.rand(n, depth, generator=generator) < settings.shifted_sections
    steps = torch.randint(-settings.shift_voxels, settings.shift_voxels + 1, (n, depth, 2), generator=generator)
    if not shifted.any():
        return raw
    changed = raw.clone()
    for index, plane in torch.nonzero(shifted).tolist():
        down, right = steps[index, plane].tolist()
        rows = (torch.arange(height, device=raw.device) - down).clamp(0, height - 1)
        columns = (torch.arange(width, device=raw.device) - right).clamp(0, width - 1)
        changed[index, :, plane] = raw[index, :, plane, rows[:, None], columns]
    return changed


def _lose_sections(raw: Tensor, settings: ViewSettings, generator: torch.Generator) -> Tensor:
    """Make some planes blank, dark to bright, or a copy of a neighbour."""
    n, _, depth = raw.shape[:3]
    missing = torch.rand(n, depth, generator=generator) < settings.missing_sections
    repeated = torch.rand(n, depth, generator=generator) < 0.5
    blank = DARK + RANGE * torch.rand(n, depth, generator=generator)
    if not missing.any():
        return raw
    changed = raw.clone()
    for index, plane in torch.nonzero(missing).tolist():
        neighbour = plane - 1 if plane else 1
        value = raw[index, :, neighbour] if repeated[index, plane] else float(blank[index, plane])
        changed[index, :, plane] = value
    return changed
