"""Shapes of blocks, chunks and pyramid levels."""

from __future__ import annotations

from spoco_blocks.grid import Triple, triple
from spoco_blocks.learn.network_plan import isotropic_axes

CHUNK_EDGE = 64
COARSEST_EDGE = 64


def pyramid_factors(shape: Triple, voxel_size_nm: tuple[float, float, float], planar: bool) -> tuple[Triple, ...]:
    """Choose the downsampling of each level: fine axes first, until the coarsest level is small."""
    extent, spacing, factors = list(shape), list(voxel_size_nm), []
    while max(extent[1:] if planar else extent) > COARSEST_EDGE:
        fine = isotropic_axes(spacing, planar)
        factor = [2 if fine[axis] and extent[axis] > 1 else 1 for axis in range(3)]
        if max(factor) == 1:
            break
        factors.append(triple(factor))
        extent = [-(-e // f) for e, f in zip(extent, factor, strict=True)]
        spacing = [s * f for s, f in zip(spacing, factor, strict=True)]
    return tuple(factors)


def block_edge(wanted: int, stride: int) -> int:
    """Round up to a multiple of the stride that can be cut into chunks of a sensible size."""
    edge = -(-wanted // stride) * stride
    while edge > CHUNK_EDGE and divisor_up_to(edge, CHUNK_EDGE) < CHUNK_EDGE // 2:
        edge += stride
    return edge


def divisor_up_to(number: int, limit: int) -> int:
    """Give the largest divisor that does not exceed a limit."""
    return next(d for d in range(min(number, limit), 0, -1) if number % d == 0)
