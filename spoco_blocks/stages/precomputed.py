"""What meshes and skeletons have in common: their level of the pyramid, where it lies, and a folder of files."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spoco_blocks.engine.ledger import Records
from spoco_blocks.engine.runner import Blocks
from spoco_blocks.errors import SettingsError, VolumeError
from spoco_blocks.grid import Triple, triple
from spoco_blocks.settings.base import LengthsNm
from spoco_blocks.stages.plan import Plan

# Fewer, and thin parts vanish; a ball of so many has about 600 triangles.
VOXELS_ACROSS = 8


def check_level(segmentation: str, kind: str, level: int | None, levels: int, *, planar: bool) -> None:
    """Check that a segmentation can have meshes or skeletons, whichever `kind` names.

    Raises
    ------
    VolumeError
        When it is of 2D images, or has no such level.
    """
    key = f"segmentations.{segmentation}.{kind}"
    if planar:
        raise VolumeError(f"{key}: its volume is of 2D images, whose objects have no {kind}. Leave `{kind}` out.")
    if level is not None and level >= levels:
        raise VolumeError(
            f"{key}.level is {level}, but the pyramid will have the levels 0 to {levels - 1}. Choose one of these, or "
            "leave it out."
        )


def check_library(kind: str) -> None:
    """Check that what makes skeletons is installed.

    Raises
    ------
    SettingsError
        When it is not.
    """
    if kind == "skeletons" and find_spec("bioimage_cpp") is None:
        raise SettingsError(
            "skeletons need bioimage-cpp, which is not installed: pip install 'spoco-blocks[skeletons]'."
        )


def choose_level(plan: Plan, objects: pa.Table) -> int:
    """Choose the coarsest level at which the median object is about `VOXELS_ACROSS` voxels thick.

    Parameters
    ----------
    plan : Plan
        Voxel size and factors of the levels.
    objects : pyarrow.Table
        Those that count, with `volume_um3` and `surface_um2`.
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


def position_nm(places: NDArray[Any], voxel_size_nm: LengthsNm, factor: Triple) -> NDArray[np.float32]:
    """Give x, y, z in nm from the centre of the volume's first voxel, as OME-Zarr and neuroglancer count.

    Parameters
    ----------
    places : ndarray, shape (n, 3)
        z, y, x in voxels of a level, from the centre of its first one.
    voxel_size_nm : tuple of float
        Voxel size at level 0.
    factor : tuple of int
        How much coarser the level is.
    """
    size, window = np.array(voxel_size_nm), np.array(factor)
    # A coarse voxel's centre is that of the window that it stands for.
    found = places * (size * window) + size * (window - 1) / 2
    return np.ascontiguousarray(found[:, ::-1], dtype=np.float32)


def forget_others(folder: Path, blocks: Blocks) -> None:
    """Remove files of another segmentation or other settings, and records of files that are gone."""
    if not folder.exists():
        shutil.rmtree(blocks.folder, ignore_errors=True)
    elif not Records(blocks.folder, blocks.record_identity, 0).finished:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
