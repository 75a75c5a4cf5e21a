"""What optional stages take of samples: a copy of the raw data, holes that are filled, meshes and skeletons."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.grid import Box, triple
from spoco_blocks.kernels.downsample import downsample_mean, downsample_mode
from spoco_blocks.kernels.gaps import number_gaps
from spoco_blocks.kernels.skeleton import skeleton
from spoco_blocks.kernels.surface import object_boxes, surface
from spoco_blocks.settings.base import LengthsNm
from spoco_blocks.settings.segmentation import MeshSettings, SkeletonSettings
from spoco_blocks.stages.plan.planned import Plan
from spoco_blocks.stages.precomputed import level_factors
from spoco_blocks.stages.sources import open_source
from spoco_blocks.volumes import compressed_bytes

Cost = dict[str, float]


@dataclass(frozen=True)
class Options:
    """What is asked for beside a segmentation.

    Attributes
    ----------
    raw_pyramid, gaps : bool
        Whether the raw data are copied, and whether holes are filled.
    meshes, skeletons : settings or None
        How; None = none.
    """

    raw_pyramid: bool = False
    gaps: bool = False
    meshes: MeshSettings | None = None
    skeletons: SkeletonSettings | None = None


def raw_cost(plan: Plan, box: Box) -> Cost:
    """Read, compress and downsample the raw data of a box: seconds and bytes for a voxel, all channels together."""
    start = time.perf_counter()
    voxels = open_source(plan.predicted.raw).read(box.shifted(plan.origin))
    if voxels.dtype.kind == "f":
        voxels = voxels.astype(np.float32, copy=False)
    stored = compressed_bytes(voxels)
    copied = time.perf_counter()
    downsample_mean(voxels, (1, 2, 2))
    seconds = copied - start, time.perf_counter() - copied
    return {"copy_s": seconds[0] / box.size, "mean_s": seconds[1] / box.size, "raw_bytes": stored / box.size}


def labels_cost(plan: Plan, labels: NDArray[Any], options: Options) -> Cost:
    """Number the gaps of labelled voxels, mesh and thin their pieces; what is not asked for is not measured."""
    labels, found = labels.astype(np.uint32, copy=False), Cost()
    if options.gaps:
        start = time.perf_counter()
        number_gaps(labels, planar=plan.planar)
        found["gaps_s"] = (time.perf_counter() - start) / labels.size
    if options.meshes is not None:
        found |= _shape_cost(plan, labels, "mesh", options.meshes.level, _mesh_bytes)
    if options.skeletons is not None:
        level = options.skeletons.level
        z, y, x = (size * f for size, f in zip(plan.voxel_size_nm, level_factors(plan)[level or 0], strict=True))
        size = partial(_skeleton_bytes, (z, y, x), options.skeletons)
        found |= _shape_cost(plan, labels, "skeleton", level, size)
    return found


def _shape_cost(
    plan: Plan, labels: NDArray[np.uint32], name: str, level: int | None, size: Callable[[NDArray[np.bool_]], int]
) -> Cost:
    """Make the shape of every piece: seconds, bytes and pieces for a voxel of full resolution.

    A sample cuts objects into more pieces than blocks do, closes each, and is finer than a level that is not chosen
    yet: the whole takes less.
    """
    start, voxels, stored, pieces = time.perf_counter(), labels.size, 0, 0
    for factor in plan.factors[: level or 0]:
        labels = downsample_mode(labels, factor)
    for piece in _pieces(labels):
        stored += size(piece)
        pieces += 1
    seconds = time.perf_counter() - start
    return {f"{name}_s": seconds / voxels, f"{name}_bytes": stored / voxels, f"{name}_pieces": pieces / voxels}


def _pieces(labels: NDArray[np.uint32]) -> Iterator[NDArray[np.bool_]]:
    """Give the mask of each label, with a voxel of background around it."""
    padded = np.pad(labels, 1)
    for number, first, last in zip(*object_boxes(padded), strict=True):
        yield padded[Box(triple(first - 1), triple(last + 1)).slices] == number


def _mesh_bytes(piece: NDArray[np.bool_]) -> int:
    vertices, triangles = surface(piece)
    return 4 + 12 * (len(vertices) + len(triangles))


def _skeleton_bytes(spacing_nm: LengthsNm, settings: SkeletonSettings, piece: NDArray[np.bool_]) -> int:
    found = skeleton(piece, spacing_nm, settings.branch_radii, settings.branch_voxels * max(spacing_nm))
    return 8 + 16 * len(found.places) + 8 * len(found.edges)
