"""The stores that the blocks of a segmentation write."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from spoco_blocks.engine.layout import SegmentationResults
from spoco_blocks.engine.runner import check_writable
from spoco_blocks.errors import VolumeError
from spoco_blocks.grid import triple
from spoco_blocks.stages.block_shapes import CHUNK_EDGE, divisor_up_to
from spoco_blocks.stages.plan.planned import Plan
from spoco_blocks.volumes import Volume, create_ome_zarr, create_zarr, open_volume


def create_stores(plan: Plan, results: SegmentationResults) -> None:
    """Create the arrays that blocks write; a store that is there and fits is kept, with what is in it.

    Raises
    ------
    GridError
        When blocks and stores do not fit.
    """
    common = store_layout(plan)
    offsets = len(plan.offsets)
    output: list[tuple[Path, str, int | None]] = [
        (results.embeddings, "float16" if plan.predicted.scale is None else "int8", plan.predicted.channels),
        (results.foreground, "uint8", None),
        (results.affinities, "uint8", offsets),
    ]
    arrays = [] if plan.stream else output[: 3 if offsets else 2]
    if plan.stream:
        shutil.rmtree(results.ledger("embed"), ignore_errors=True)
    for path, *_ in output[len(arrays) :]:
        shutil.rmtree(path, ignore_errors=True)
    for path, dtype, channels in [*arrays, (results.fragments, "uint32", None)]:
        if not store_fits(path, dtype, channels, common):
            _forget(path, results, "cluster" if path == results.fragments else "embed")
            create_zarr(str(path), dtype=dtype, channels=channels, overwrite=True, **common)
    if not (store_fits(results.segments, "uint32", None, common) and _levels_fit(results.segments, plan)):
        _forget(results.segments, results, "relabel", "pyramid")
        create_ome_zarr(
            str(results.segments), dtype="uint32", levels=plan.levels, factors=plan.factors, is_label=True,
            name="segmentation", **common,
        )  # fmt: skip
    for path in [*(path for path, *_ in arrays), results.fragments, results.segments]:
        check_writable(plan.cluster_grid, open_volume(path).meta.shard_shape)


def store_layout(plan: Plan) -> dict[str, Any]:
    """Give what all stores of a plan have in common, as `create_zarr` takes it."""
    return {
        "shape": plan.shape,
        "chunk_shape": triple(divisor_up_to(edge, CHUNK_EDGE) for edge in plan.block_shape),
        "shard_shape": plan.block_shape,
        "voxel_size_nm": plan.voxel_size_nm,
    }


def _forget(store: Path, results: SegmentationResults, *stages: str) -> None:
    """Remove a store and the records that say its blocks are done."""
    for stage in stages:
        shutil.rmtree(results.ledger(stage), ignore_errors=True)
    shutil.rmtree(store, ignore_errors=True)


def store_fits(path: Path, dtype: str, channels: int | None, expected: dict[str, Any]) -> bool:
    """Tell whether an array is there already and laid out as `store_layout` says."""
    try:
        volume: Volume = open_volume(path)
    except (VolumeError, OSError):
        return False
    meta = volume.meta
    return (
        (meta.dtype, meta.channels) == (np.dtype(dtype), channels)
        and (meta.shape, meta.chunk_shape) == (expected["shape"], expected["chunk_shape"])
        and (meta.shard_shape, meta.voxel_size_nm) == (expected["shard_shape"], expected["voxel_size_nm"])
    )


def _levels_fit(path: Path, plan: Plan) -> bool:
    shape = plan.shape
    for level, factor in enumerate(plan.factors, 1):
        shape = triple(-(-s // f) for s, f in zip(shape, factor, strict=True))
        try:
            if open_volume(path, level=level).meta.shape != shape:
                return False
        except VolumeError:
            return False
    return True
