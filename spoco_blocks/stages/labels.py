"""Stage `labels`: what a volume holds, once per volume.

Robust intensity range of the raw data, the table of labelled objects, which of them count as annotated, and a
spatial split into training and validation.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import VolumeResults
from spoco_blocks.engine.ledger import Records
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.engine.runner import Blocks, run
from spoco_blocks.errors import LabelsError, VolumeError
from spoco_blocks.grid import Block, BlockGrid, Box, triple
from spoco_blocks.learn.intensity import HIGHEST_PERCENTILE, LOW_PERCENTILE, intensity_range
from spoco_blocks.settings.jobs import LabelsJob, digest
from spoco_blocks.settings.sections import LabelSettings
from spoco_blocks.stages.sources import check_volume
from spoco_blocks.volumes import Volume, read_instances

log = logging.getLogger(__name__)

VERSION = 3
EDGE = 128
SAMPLED_VOXELS = 2_000_000
ANCHORS_PER_OBJECT = 8
OBJECTS_FOR_VALIDATION = 10
# Quantile of the annotated objects' sizes that counts as small.
SMALL = 0.1
# Voxels; a thinner part would hold no object whole.
THINNEST_PART = 16


@dataclass(frozen=True)
class ScanBlock:
    """Sample intensities and index the objects of one block."""

    job: LabelsJob
    step: int

    def __call__(self, block: Block) -> dict[str, NDArray[Any]]:
        """Read the block and give samples and objects."""
        raw, labels, region = check_volume(self.job)
        voxels = raw.read(block.inner)
        voxels = voxels.reshape(raw.meta.channels or 1, -1)
        if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
            raise VolumeError(
                f"{raw.uri} holds {np.count_nonzero(~np.isfinite(voxels))} voxels that are not finite (NaN or "
                f"infinite) in {block.inner}; replace them, for instance by 0, before segmenting."
            )
        tables: dict[str, NDArray[Any]] = {"intensities": voxels[:, self.step // 2 :: self.step].copy()}
        part = block.inner.intersection(region)
        if labels is not None and part.size and self._chosen(raw, block):
            tables |= index_objects(read_instances(labels, part), part, np.random.default_rng(block.index))
        return tables

    def _chosen(self, raw: Volume, block: Block) -> bool:
        """Tell whether the image of this block, which holds no other, is one to learn from."""
        if self.job.labels is None or self.job.labels.images is None:
            return True
        return block.inner.start[0] in self.job.labels.images.of(raw.meta.shape[0])

    def memory_bytes(self, block: Block) -> int:
        """Raw, labels, and the order and positions of labelled voxels, measured for fully labelled data."""
        return block.inner.size * 80


def index_objects(ids: NDArray[np.uint64], box: Box, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """List the objects of a box: ids, voxels, boxes in volume coordinates, and a few voxels of each."""
    flat = np.flatnonzero(ids)
    order = flat[np.argsort(ids.reshape(-1)[flat], kind="stable")]
    found, starts, counts = np.unique(ids.reshape(-1)[order], return_index=True, return_counts=True)
    positions = np.stack(np.unravel_index(order, ids.shape), 1) + np.array(box.start)
    picks = [
        start + rng.choice(count, min(count, ANCHORS_PER_OBJECT), replace=False)
        for start, count in zip(starts, counts, strict=True)
    ]
    picked = np.concatenate(picks) if picks else np.zeros(0, np.int64)
    return {
        "ids": found,
        "voxels": counts.astype(np.int64),
        "start": np.minimum.reduceat(positions, starts) if len(found) else np.zeros((0, 3), np.int64),
        "stop": np.maximum.reduceat(positions, starts) + 1 if len(found) else np.zeros((0, 3), np.int64),
        "anchor_ids": ids.reshape(-1)[order[picked]],
        "anchors": positions[picked],
    }


def run_labels(job: LabelsJob, results: VolumeResults, execution: Execution, content: str = "") -> Manifest:
    """Index a volume; `content` is a fingerprint of what its stores hold.

    Raises
    ------
    VolumeError, LabelsError
        When the data cannot be used.
    """
    raw, labels, region = check_volume(job)
    watch = Stopwatch("labels", digest("labels", VERSION, job.model_dump(mode="json"), content))
    edge = triple((1, 1024, 1024) if raw.meta.independent_images else (EDGE, EDGE, EDGE))
    grid = BlockGrid(raw.meta.shape, edge)
    blocks = Blocks(grid, results.ledger, watch.identity)
    run(ScanBlock(job, max(1, prod(raw.meta.shape) // SAMPLED_VOXELS)), blocks, execution)
    records = list(Records(results.ledger, blocks.record_identity, len(grid)))
    intensities = np.concatenate([record["intensities"] for record in records], 1).astype(np.float64)
    low, high = intensity_range(intensities)
    if (high <= low).any():
        raise VolumeError(
            f"{raw.uri} is constant: from its {LOW_PERCENTILE} % to its {HIGHEST_PERCENTILE} % percentile all "
            f"intensities are {low.tolist()}; expected an image."
        )
    result: dict[str, Any] = {
        "job": job.model_dump(mode="json"),
        "shape": raw.meta.shape,
        "axes": raw.meta.axes,
        "planar": raw.meta.independent_images or raw.meta.shape[0] == 1,
        "channels": raw.meta.channels or 1,
        "voxel_size_nm": raw.meta.voxel_size_nm,
        "intensity_low": low.tolist(),
        "intensity_high": high.tolist(),
    }
    if labels is not None and job.labels is not None:
        result |= _write_objects(job.labels, results, merge_objects(records), region, raw.meta.voxel_size_nm)
    return watch.finish(results.manifest, result, digest(intensities.sum(), intensities.std()))


def merge_objects(records: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Join the objects that several blocks saw parts of."""
    found = [record for record in records if "ids" in record]
    if not found:
        return {"ids": np.zeros(0, np.uint64)}
    joined = {key: np.concatenate([record[key] for record in found]) for key in found[0] if key != "intensities"}
    ids, place = np.unique(joined["ids"], return_inverse=True)
    start = np.full((len(ids), 3), np.iinfo(np.int64).max)
    stop = np.zeros((len(ids), 3), np.int64)
    np.minimum.at(start, place, joined["start"])
    np.maximum.at(stop, place, joined["stop"])
    voxels = np.bincount(place, joined["voxels"], len(ids)).astype(np.int64)
    return {
        "ids": ids,
        "voxels": voxels,
        "start": start,
        "stop": stop,
        "anchor_ids": joined["anchor_ids"],
        "anchors": joined["anchors"],
    }


def _write_objects(
    labels: LabelSettings,
    results: VolumeResults,
    objects: Mapping[str, NDArray[Any]],
    region: Box,
    voxel_size_nm: tuple[float, float, float] | None,
) -> dict[str, Any]:
    if not len(objects["ids"]):
        raise LabelsError(
            f"{labels.uri} labels no object in {region}; expected 0 = not labelled and at least one other value. Check "
            "`uri`, `level` and `region` of the labels."
        )
    kept = choose_objects(objects["ids"], objects["voxels"], objects["start"][:, 0], labels)
    training, validation = split_region(objects, kept, region, labels.validation_fraction)
    table = {
        "id": objects["ids"],
        "voxels": objects["voxels"],
        "annotated": kept,
        **{
            f"{axis}{end}": objects[name][:, i]
            for end, name in ((0, "start"), (1, "stop"))
            for i, axis in enumerate("zyx")
        },
    }
    pq.write_table(pa.table(table), results.objects)
    known = np.isin(objects["anchor_ids"], objects["ids"][kept])
    anchors = {axis: objects["anchors"][known, i] for i, axis in enumerate("zyx")}
    pq.write_table(pa.table({"id": objects["anchor_ids"][known], **anchors}), results.anchors)
    extent_nm = (objects["stop"] - objects["start"])[kept] * np.array(voxel_size_nm)
    return {
        "objects": len(kept),
        "annotated": int(kept.sum()),
        "small_object_voxels": None if labels.partial else float(np.quantile(objects["voxels"][kept], SMALL)),
        "object_length_nm": float(np.median(extent_nm.max(1))),
        "region": [region.start, region.stop],
        "training": [training.start, training.stop],
        "validation": None if validation is None else [validation.start, validation.stop],
        "warnings": lone_object(labels.uri, objects["ids"], objects["voxels"]),
    }


def lone_object(uri: str, ids: NDArray[np.uint64], voxels: NDArray[np.int64]) -> list[str]:
    """Say what is wrong with labels that hold one number only, where many objects were painted with the same."""
    if len(ids) > 1:
        return []
    found = (
        f"All labels in {uri} have the number {ids[0]} ({voxels[0]:,} voxels), so they count as one object. Where they "
        "are several, give each a number of its own (skimage.measure.label does, for objects that do not touch); where "
        "it is one, annotate more."
    )
    log.warning("%s", found)
    return [found]


def choose_objects(
    ids: NDArray[np.uint64], voxels: NDArray[np.int64], images: NDArray[np.int64], labels: LabelSettings
) -> NDArray[np.bool_]:
    """Draw the objects that count as annotated: at least one, or one of each image that has any.

    Parameters
    ----------
    ids, voxels, images : (n,) ndarray
        Id, size and, of independent images, number of the image of each object.
    labels : LabelSettings
        How many, of which size, and the seed.

    Returns
    -------
    (n,) ndarray of bool
        Which are annotated.

    Raises
    ------
    LabelsError
        When none is large enough.
    """
    large = np.flatnonzero(voxels >= labels.min_voxels)
    if not len(large):
        raise LabelsError(
            f"none of the {len(ids)} objects in {labels.uri} has {labels.min_voxels} voxels (the largest has "
            f"{voxels.max()}); lower labels.min_voxels."
        )
    of_image = [large[images[large] == image] for image in np.unique(images[large])]
    rng, kept = np.random.default_rng(labels.seed), np.zeros(len(ids), bool)
    for group in of_image if labels.keep_per == "image" else [large]:
        count = max(1, round(labels.keep_fraction * len(group)))
        kept[rng.choice(group, count, replace=False)] = True
    return kept


def split_region(
    objects: Mapping[str, NDArray[Any]], kept: NDArray[np.bool_], region: Box, fraction: float
) -> tuple[Box, Box | None]:
    """Cut the region in two along its longest axis, so that about `fraction` of the annotated objects validate."""
    if kept.sum() < OBJECTS_FOR_VALIDATION or not fraction:
        return region, None
    axis = int(np.argmax(region.shape))
    centres = np.sort((objects["start"][kept, axis] + objects["stop"][kept, axis]) / 2)
    plane = int(centres[-max(1, round(fraction * len(centres)))])
    if not region.start[axis] + THINNEST_PART <= plane <= region.stop[axis] - THINNEST_PART:
        return region, None
    middle_stop = triple(plane if a == axis else region.stop[a] for a in range(3))
    middle_start = triple(plane if a == axis else region.start[a] for a in range(3))
    return Box(region.start, middle_stop), Box(middle_start, region.stop)
