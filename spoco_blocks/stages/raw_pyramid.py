"""Stage `raw_pyramid`: the raw data as an OME-Zarr image with the segmentation's levels, so that viewers open both.

It depends on the plan alone: clustering or stitching anew copies nothing again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout, SegmentationResults
from spoco_blocks.engine.ledger import Tables
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.engine.runner import Blocks, run
from spoco_blocks.grid import Block, Triple
from spoco_blocks.settings.base import LengthsNm
from spoco_blocks.settings.jobs import digest
from spoco_blocks.settings.optional_jobs import RawPyramidJob
from spoco_blocks.settings.sections import Source
from spoco_blocks.settings.segmentation import OmeZarrVersion
from spoco_blocks.stages.plan import Plan, forget, image_fits, image_layout
from spoco_blocks.stages.pyramid import write_levels
from spoco_blocks.stages.sources import open_source
from spoco_blocks.volumes import create_ome_zarr, find_pyramid

log = logging.getLogger(__name__)

VERSION = 1
# As they are and compressed, and a decoded chunk.
COPIES = 3
# Of a voxel size, by which viewers would not see the difference.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class CopyBlock:
    """Copy a block of the raw data.

    Attributes
    ----------
    raw, copy : Source
        From where, and to where.
    origin : tuple of int
        Where the copy starts in the raw data.
    """

    raw: Source
    copy: Source
    origin: Triple

    def __call__(self, block: Block) -> Tables:
        """Copy one block."""
        copy, voxels = open_source(self.copy), open_source(self.raw).read(block.inner.shifted(self.origin))
        copy.write(block.inner, voxels.astype(copy.meta.dtype, copy=False))
        return {}

    def memory_bytes(self, block: Block) -> int:
        """Voxels of all channels."""
        meta = open_source(self.copy).meta
        return copy_bytes(block.inner.size, meta.dtype.itemsize * (meta.channels or 1))


def copy_bytes(voxels: int, each: int) -> int:
    """Project the memory to copy a block of so many voxels, each of so many bytes."""
    return COPIES * voxels * each


def own_pyramid(raw: Source, voxel_size_nm: LengthsNm) -> str | None:
    """Give the address of the image that the raw data come from, where viewers can open it beside the segmentation.

    It needs levels, and has to state the voxel size, that of the segmentation; None where it is not like that.
    """
    found = find_pyramid(raw.uri)
    if found is None or len(found[0].paths) < 2:
        return None
    pyramid, level = found
    size = pyramid.voxel_size_nm(level or raw.level)
    if size is None or not np.allclose(np.multiply(size, raw.downscale or 1), voxel_size_nm, rtol=TOLERANCE):
        return None
    return pyramid.group_uri


def made_of(plan: Plan) -> list[Any]:
    """Give what decides the copy; the intensities stand for raw data that were replaced in place."""
    source, shown = plan.predicted, plan.predicted.normalisation
    return [source.raw.model_dump(mode="json"), plan.origin, plan.shape, plan.factors, plan.voxel_size_nm,
            shown.low, shown.high]  # fmt: skip


def copied_as(plan: Plan) -> tuple[str, int | None]:
    """Give data type and channels of the copy; viewers read no other floats than float32."""
    meta = open_source(plan.predicted.raw).meta
    return "float32" if meta.dtype.kind == "f" else meta.dtype.name, meta.channels


def copied_voxel_bytes(plan: Plan) -> int:
    """Give the bytes of a voxel of the copy, with all channels."""
    dtype, channels = copied_as(plan)
    return np.dtype(dtype).itemsize * (channels or 1)


def create_copy(plan: Plan, results: SegmentationResults, version: OmeZarrVersion) -> None:
    """Create the image; one that is there and fits is kept, with what is in it."""
    dtype, channels = copied_as(plan)
    image, shown = image_layout(plan, version), plan.predicted.normalisation
    if image_fits(results.raw_pyramid, dtype, channels, image):
        return
    forget(results.raw_pyramid, results, "raw_pyramid")
    windows = list(zip(shown.low, shown.high, strict=True))
    create_ome_zarr(
        results.raw_pyramid, dtype=dtype, channels=channels, windows=windows, is_label=False, name="raw", **image
    )


def run_raw_pyramid(job: RawPyramidJob, layout: Layout, execution: Execution) -> Manifest:
    """Copy the raw data and write the coarser levels, unless they have levels where they are."""
    results = layout.segmentation(job.segmentation)
    planned = Manifest.read(results.manifest("plan"))
    plan = Plan.read(planned)
    raw, inputs = plan.predicted.raw, {"plan": planned.digest}
    watch = Stopwatch("raw_pyramid", digest("raw_pyramid", VERSION, made_of(plan)), inputs)
    result: dict[str, Any] = {"job": job.model_dump(mode="json")}
    there = own_pyramid(raw, plan.voxel_size_nm)
    if there is not None:
        log.info("%s has levels already and is not copied", there)
        forget(results.raw_pyramid, results, "raw_pyramid")
        return watch.finish(results.manifest("raw_pyramid"), result | {"uri": there, "copied": False})
    create_copy(plan, results, job.ome_zarr_version)
    uri, ledgers = results.raw_pyramid, results.ledger("raw_pyramid")
    blocks = Blocks(plan.level_grid(0), ledgers / "level-0", watch.identity)
    copied = run(CopyBlock(raw, Source(uri=uri), plan.origin), blocks, execution)
    found = write_levels(plan, uri, ledgers, watch.identity, execution, ids=False)
    found["computed"] += copied.computed + copied.reused
    found["work_s"] += copied.work_s
    return watch.finish(results.manifest("raw_pyramid"), result | {"uri": uri, "copied": True} | found)
