"""Geometry of a view: shared by both networks and the labels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from spoco_blocks.grid import Triple
from spoco_blocks.learn.label_values import IGNORE
from spoco_blocks.learn.network_plan import isotropic_axes
from spoco_blocks.settings.views import ViewSettings

Voxels = NDArray[Any]
PLANES = ((0, 1), (0, 2), (1, 2))


def turn(
    raw: Voxels, labels: Voxels, isotropic: tuple[bool, bool, bool], rng: np.random.Generator
) -> tuple[Voxels, Voxels]:
    """Flip along random axes and rotate by quarter turns in the planes whose voxels are square.

    Parameters
    ----------
    raw : (c, z, y, x) float32
        Raw data.
    labels : (z, y, x) int32
        Labels.
    isotropic : tuple of bool
        Axes that share the finest voxel size; only these are exchanged.
    rng : numpy.random.Generator
        Where the choice is drawn from.
    """
    flips = tuple(axis for axis in range(3) if rng.random() < 0.5)
    raw, labels = np.flip(raw, tuple(axis + 1 for axis in flips)), np.flip(labels, flips)
    for first, second in PLANES:
        quarter_turns = int(rng.integers(4))
        square = labels.shape[first] == labels.shape[second]
        if isotropic[first] and isotropic[second]:
            quarter_turns = quarter_turns if square else quarter_turns // 2 * 2
            raw = np.rot90(raw, quarter_turns, (first + 1, second + 1))
            labels = np.rot90(labels, quarter_turns, (first, second))
    # Not ascontiguousarray: it keeps the negative stride of a flipped axis of length 1, which torch refuses.
    return raw.copy(), labels.copy()


def warp(
    raw: Tensor,
    labels: Tensor,
    settings: ViewSettings,
    voxel_size_nm: tuple[float, float, float],
    planar: bool,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Rotate, scale and elastically deform some of the samples, each by a draw of its own.

    Parameters
    ----------
    raw : Tensor
        (n, c, z, y, x) float32, on any device.
    labels : Tensor
        (n, z, y, x) of any signed integer type, on the same device.
    settings : ViewSettings
        Strengths.
    voxel_size_nm : tuple of float
        Extent of a voxel along z, y, x in nm.
    planar : bool
        Whether z counts independent images.
    generator : torch.Generator
        On the CPU: the same seed draws the same warp for every device.

    Returns
    -------
    raw, labels : Tensor
        Raw data (linear, continued by its border) and labels (nearest, ids unchanged whatever their size). Labels
        whose source lies outside of the patch are -2 (ignore). The arguments are returned where nothing was drawn.

    Notes
    -----
    All lengths are physical, and only the axes that share the finest voxel size move: where z is coarse, planes are
    deformed differently but never mixed, because no section of the data looks like the mean of two. The elastic
    displacement is a uniform cubic B-spline; at a quarter of its node spacing it cannot fold (Choi and Lee 2000: 0.40
    in 3D). What is turned in from outside of the patch is lost to the loss, 15 % of a warped patch of 24 x 40 x 40
    voxels by default.
    Cost: one interpolation of each warped sample; memory: three float32 and one int64 per voxel.
    """
    chosen = torch.nonzero(torch.rand(len(raw), generator=generator) < settings.warp_probability)[:, 0]
    if not len(chosen):
        return raw, labels
    moving = isotropic_axes(voxel_size_nm, planar)
    finest = min(size for size, moves in zip(voxel_size_nm, moving, strict=True) if moves)
    spacing = torch.tensor([size / finest for size in voxel_size_nm])
    matrices = _draw_matrices(len(chosen), settings, spacing, moving, generator)
    z, y, x = raw.shape[2:]
    displacement = _draw_displacement(len(chosen), settings, spacing, (z, y, x), generator, raw.device)
    sources = _sources(matrices, displacement, moving)
    chosen = chosen.to(raw.device)
    warped = sample(raw[chosen], labels[chosen], sources)
    raw, labels = raw.clone(), labels.clone()
    raw[chosen], labels[chosen] = warped
    return raw, labels


def sample(raw: Tensor, labels: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
    """Look up raw data and labels at given places.

    Parameters
    ----------
    raw : Tensor
        (n, c, z, y, x) float32.
    labels : Tensor
        (n, z, y, x) of any signed integer type.
    sources : Tensor
        (n, 3, z, y, x) float32, where each voxel comes from along z, y, x, in voxels; (n, 2, z, y, x) along y, x where
        every plane stays by itself.
    """
    volumes, ids = raw, labels
    if planes := sources.shape[1] == 2:
        volumes, sources = raw.transpose(1, 2).flatten(0, 1), sources.transpose(1, 2).flatten(0, 1)
        ids = labels.flatten(0, 1)
    extents = ids.shape[1:]
    along = sources.unbind(1)
    # grid_sample wants x first, and -1 and 1 at the outer faces of the border voxels.
    grid = torch.stack([(2 * s + 1) / e - 1 for s, e in zip(along[::-1], extents[::-1], strict=True)], -1)
    warped = functional.grid_sample(volumes, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if planes:
        warped = warped.view(len(raw), raw.shape[2], *warped.shape[1:]).transpose(1, 2).contiguous()
    # Ids are gathered, not interpolated: float32 holds integers up to 2^24 only.
    place, inside = torch.zeros_like(ids, dtype=torch.int64), torch.ones_like(ids, dtype=torch.bool)
    for source, extent in zip(along, extents, strict=True):
        nearest = source.round()
        inside &= (nearest >= 0) & (nearest < extent)
        place = place * extent + nearest.clamp(0, extent - 1).long()
    found = ids.flatten(1).gather(1, place.flatten(1)).view_as(ids)
    return warped, torch.where(inside, found, IGNORE).view_as(labels)


def affine(degrees: Tensor, factor: Tensor, spacing: Tensor, moving: tuple[bool, bool, bool]) -> Tensor:
    """Give matrices that rotate and scale in physical space, as they act on positions in voxels.

    Parameters
    ----------
    degrees : Tensor
        (n, 3) float32, rotations in the planes zy, zx, yx, in the sense of torch.rot90; those with an axis that does
        not move are left out.
    factor : Tensor
        (n,) float32, scale of the axes that move.
    spacing : Tensor
        (3,) float32, relative voxel size.
    moving : tuple of bool
        Axes that move.

    Returns
    -------
    Tensor
        (n, 3, 3) float32.
    """
    matrices = torch.eye(3).repeat(len(degrees), 1, 1)
    for index, (first, second) in enumerate(PLANES):
        if moving[first] and moving[second]:
            turned = torch.eye(3).repeat(len(degrees), 1, 1)
            cosine, sine = torch.cos(torch.deg2rad(degrees[:, index])), torch.sin(torch.deg2rad(degrees[:, index]))
            turned[:, first, first], turned[:, second, second] = cosine, cosine
            turned[:, first, second], turned[:, second, first] = sine, -sine
            matrices = matrices @ turned
    scaled = torch.where(torch.tensor(moving), factor[:, None], torch.ones(1))
    return matrices * scaled[:, None] * spacing / spacing[:, None]


def _draw_matrices(
    count: int, settings: ViewSettings, spacing: Tensor, moving: tuple[bool, bool, bool], generator: torch.Generator
) -> Tensor:
    degrees = settings.rotation_degrees * (2 * torch.rand(count, 3, generator=generator) - 1)
    factor = (1 + settings.scale) ** (2 * torch.rand(count, generator=generator) - 1)
    return affine(degrees, factor, spacing, moving)


def _draw_displacement(
    count: int,
    settings: ViewSettings,
    spacing: Tensor,
    shape: Triple,
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """Draw (n, 3, z, y, x) float32 in voxels: uniform at the nodes of a coarse lattice, a cubic B-spline between."""
    bases = [
        _cubic_basis(extent, size / settings.elastic_spacing_voxels)
        for extent, size in zip(shape, spacing.tolist(), strict=True)
    ]
    nodes = torch.rand(count, 3, *[basis.shape[1] for basis in bases], generator=generator)
    nodes = settings.elastic_voxels * (2 * nodes - 1) / spacing[:, None, None, None]
    z, y, x = (basis.to(device) for basis in bases)
    in_plane = y @ (nodes.to(device) @ x.t())
    return torch.matmul(z, in_plane.flatten(3)).view(count, 3, *shape)


def _cubic_basis(extent: int, step: float) -> Tensor:
    """Give the weights (extent, nodes) float32 of a uniform cubic B-spline at voxels that lie `step` nodes apart."""
    position = torch.arange(extent) * step
    first = position.floor().long()
    t = position - first
    weights = torch.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 1 + 3 * (t + t**2 - t**3), t**3], 1)
    basis = torch.zeros(extent, math.floor((extent - 1) * step) + 4)
    return basis.scatter_(1, first[:, None] + torch.arange(4), weights / 6)


def _sources(matrices: Tensor, displacement: Tensor, moving: tuple[bool, bool, bool]) -> Tensor:
    """Give where each voxel comes from, (n, 3, z, y, x), or (n, 2, z, y, x) where planes stay by themselves."""
    shape = displacement.shape[2:]
    offsets = [torch.arange(extent, device=displacement.device) - (extent - 1) / 2 for extent in shape]
    columns = [offset.view([-1 if a == axis else 1 for a in range(3)]) for axis, offset in enumerate(offsets)]
    along = []
    for axis in range(3) if moving[0] else (1, 2):
        source = displacement[:, axis] * moving[axis] + (shape[axis] - 1) / 2
        for other, column in enumerate(columns):
            # Not a matrix product: reduced precision there (TF32) would move voxels.
            source = source + matrices[:, axis, other].to(source.device)[:, None, None, None] * column
        along.append(source)
    return torch.stack(along, 1)
