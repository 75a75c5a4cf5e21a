"""The stores that the blocks of a segmentation write."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from spoco_blocks.engine.layout import SegmentationResults
from spoco_blocks.engine.manifest import write_atomically
from spoco_blocks.engine.runner import check_writable
from spoco_blocks.errors import StoreError, VolumeError, VolumeNotFoundError
from spoco_blocks.grid import triple
from spoco_blocks.settings.segmentation import OmeZarrVersion
from spoco_blocks.stages.block_shapes import CHUNK_EDGE, divisor_up_to
from spoco_blocks.stages.plan.planned import Plan
from spoco_blocks.stages.sources import open_source
from spoco_blocks.volumes import (
    Volume,
    create_ome_zarr,
    create_zarr,
    find_pyramid,
    is_stored,
    open_volume,
    remove_tree,
)


def create_stores(plan: Plan, results: SegmentationResults, version: OmeZarrVersion = "0.5") -> None:
    """Create the arrays that blocks write; a store that is there and fits is kept, with what is in it.

    `version` is that of the segmentation.

    Raises
    ------
    GridError
        When blocks and stores do not fit.
    """
    common = store_layout(plan)
    offsets = len(plan.offsets)
    embedding_type = "float16" if plan.predicted.scale is None else "int8"
    output: list[tuple[str, str, int | None, bool]] = [
        (results.embeddings, embedding_type, plan.predicted.channels, True),
        (results.other_embeddings, embedding_type, plan.predicted.channels, plan.predicted.networks == 2),
        (results.foreground, "uint8", None, True),
        (results.affinities, "uint8", offsets, offsets > 0),
    ]
    arrays = [(uri, dtype, channels) for uri, dtype, channels, wanted in output if wanted and not plan.stream]
    if plan.stream:
        shutil.rmtree(results.ledger("embed"), ignore_errors=True)
    for uri, _, _, wanted in output:
        if plan.stream or not wanted:
            remove_tree(uri)
    for uri, dtype, channels in [*arrays, (results.fragments, "uint32", None)]:
        if not store_fits(uri, dtype, channels, common):
            forget(uri, results, "cluster" if uri == results.fragments else "embed")
            create_zarr(uri, dtype=dtype, channels=channels, overwrite=True, **common)
    image = image_layout(plan, version)
    if not image_fits(results.segments, "uint32", None, image):
        forget(results.segments, results, "relabel", "pyramid")
        create_ome_zarr(results.segments, dtype="uint32", is_label=True, name="segmentation", **image)
    for uri in [*(uri for uri, *_ in arrays), results.fragments, results.segments]:
        check_writable(plan.cluster_grid, open_volume(uri).meta.shard_shape)


def choose_place(results: SegmentationResults, arrays: str | None) -> SegmentationResults:
    """Write down where the arrays of a segmentation go: below `arrays`, or into its folder.

    Raises
    ------
    VolumeError
        When arrays are there that this results folder did not put there: it cannot know what they hold.
    """
    moved = results.with_arrays_below(arrays)
    if moved == results:
        return results
    if moved.arrays is None:
        results.place.unlink()
        return moved
    arrays_of = (moved.embeddings, moved.other_embeddings, moved.foreground, moved.affinities)
    for uri in (*arrays_of, moved.fragments, moved.segments, moved.raw_pyramid):
        if is_stored(uri):
            raise VolumeError(
                f"{uri} is there already, and is not what {results.root} has been writing. Remove {moved.arrays}, or "
                "choose another place (execution.arrays); each results folder needs one of its own."
            )
    results.root.mkdir(parents=True, exist_ok=True)
    write_atomically(results.place, f"{moved.arrays}\n")
    return moved


def store_layout(plan: Plan) -> dict[str, Any]:
    """Give what all stores of a plan have in common, as `create_zarr` takes it."""
    return {
        "shape": plan.shape,
        "chunk_shape": triple(divisor_up_to(edge, CHUNK_EDGE) for edge in plan.block_shape),
        "shard_shape": plan.block_shape,
        "voxel_size_nm": plan.voxel_size_nm,
    }


def image_layout(plan: Plan, version: OmeZarrVersion) -> dict[str, Any]:
    """Give what all OME-Zarr images of a plan have in common, as `create_ome_zarr` takes it.

    Version 0.4 knows no shards. Its chunks divide the blocks on every level, so that each is written by one of them.
    """
    shard_shape = plan.block_shape if version == "0.5" else None
    pyramid = {"levels": plan.levels, "factors": plan.factors, "version": version}
    return store_layout(plan) | {"shard_shape": shard_shape} | pyramid


def forget(store: str, results: SegmentationResults, *stages: str) -> None:
    """Remove a store and the records that say its blocks are done."""
    for stage in stages:
        shutil.rmtree(results.ledger(stage), ignore_errors=True)
    remove_tree(store)
    # What this process has opened may be of another layout than what comes now.
    open_source.cache_clear()


def store_fits(uri: str | Path, dtype: str, channels: int | None, expected: dict[str, Any]) -> bool:
    """Tell whether an array is there already and laid out as `store_layout` says."""
    try:
        volume: Volume = open_volume(uri)
    except StoreError:
        raise
    except (VolumeError, OSError):
        return False
    meta = volume.meta
    written = expected["shard_shape"] or expected["chunk_shape"]
    return (
        (meta.dtype, meta.channels) == (np.dtype(dtype), channels)
        and (meta.shape, meta.chunk_shape) == (expected["shape"], expected["chunk_shape"])
        and (meta.shard_shape, meta.voxel_size_nm) == (written, expected["voxel_size_nm"])
    )


def image_fits(uri: str, dtype: str, channels: int | None, expected: dict[str, Any]) -> bool:
    """Tell whether an image is there already, with all levels, and laid out as `image_layout` says."""
    if not store_fits(uri, dtype, channels, expected):
        return False
    found = find_pyramid(uri)
    if found is None or (found[0].version, len(found[0].paths)) != (expected["version"], expected["levels"]):
        return False
    shape = expected["shape"]
    for level, factor in enumerate(expected["factors"], 1):
        shape = triple(-(-s // f) for s, f in zip(shape, factor, strict=True))
        try:
            if open_volume(uri, level=level).meta.shape != shape:
                return False
        except (VolumeError, VolumeNotFoundError):
            return False
    return True
