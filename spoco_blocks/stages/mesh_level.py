"""Which level of a segmentation's pyramid is meshed."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pyarrow as pa

from spoco_blocks.errors import VolumeError
from spoco_blocks.grid import Triple, triple
from spoco_blocks.stages.plan import Plan

# Fewer, and thin parts vanish; a ball of so many has about 600 triangles.
VOXELS_ACROSS = 8


def check_meshable(segmentation: str, level: int | None, levels: int, *, planar: bool) -> None:
    """Check that a segmentation can have meshes.

    Raises
    ------
    VolumeError
        When it is of 2D images, or has no such level.
    """
    key = f"segmentations.{segmentation}.meshes"
    if planar:
        raise VolumeError(f"{key}: its volume is of 2D images, whose objects have no surface. Leave `meshes` out.")
    if level is not None and level >= levels:
        raise VolumeError(
            f"{key}.level is {level}, but the pyramid will have the levels 0 to {levels - 1}. Choose one of these, or "
            "leave it out."
        )


def choose_level(plan: Plan, objects: pa.Table) -> int:
    """Choose the coarsest level at which the median object is about `VOXELS_ACROSS` voxels thick.

    Parameters
    ----------
    plan : Plan
        Voxel size and factors of the levels.
    objects : pyarrow.Table
        Those to mesh, with `volume_um3` and `surface_um2`.
    """
    volume, area = objects["volume_um3"].to_numpy(), objects["surface_um2"].to_numpy()
    known = area > 0
    if not known.any():
        return 0
    # A ball's diameter; of a long or flat object it is nearer to its width than to its length.
    thickness_nm = 1000 * np.median(6 * volume[known] / area[known])
    edges = [np.prod(plan.voxel_size_nm) ** (1 / 3) * np.prod(factor) ** (1 / 3) for factor in level_factors(plan)]
    return max((level for level, edge in enumerate(edges) if edge * VOXELS_ACROSS <= thickness_nm), default=0)


def level_factors(plan: Plan) -> list[Triple]:
    """Give how much coarser than level 0 each level is, along z, y, x."""
    return list(
        accumulate(plan.factors, lambda a, b: triple(i * j for i, j in zip(a, b, strict=True)), initial=(1, 1, 1))
    )
