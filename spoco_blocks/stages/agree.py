"""Stage `agree`: pseudo-labels from two segmentations of the training part of a volume, by f and by its average g.

A segment of g is kept when f segmented it alike and no annotation contradicts it. Two passes over the blocks: one
counts overlaps, the other writes what was decided from all of them.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout, PseudoResults
from spoco_blocks.engine.ledger import Records, Tables
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.engine.runner import Blocks, run
from spoco_blocks.grid import Block, BlockGrid, Box, Triple
from spoco_blocks.kernels.contingency import contingency, merge_tables
from spoco_blocks.kernels.lookup import apply_lookup
from spoco_blocks.learn.label_values import BACKGROUND
from spoco_blocks.learn.supervision import Supervision
from spoco_blocks.settings.jobs import AgreeJob, LabelsJob, digest
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.labels import index_objects, merge_objects
from spoco_blocks.stages.parts import open_part, triple_of_floats
from spoco_blocks.stages.plan import Plan, store_fits, store_layout
from spoco_blocks.stages.sources import open_source
from spoco_blocks.stages.stitch.mapped import open_table
from spoco_blocks.volumes import create_zarr

log = logging.getLogger(__name__)

VERSION = 1


@lru_cache(maxsize=4)
def open_annotations(job: LabelsJob, results: Path, identity: str) -> Supervision:
    """Open what is annotated, shells aside, once per process; `identity` makes sure that it is that of this run."""
    layout = Layout(results)
    source = Manifest.read(layout.volume(job.volume).manifest)
    part = open_part(job, source, layout, triple_of_floats(source.result["voxel_size_nm"]))
    return replace(part.volume.supervision, shell=(0, 0, 0))


@dataclass(frozen=True)
class OverlapBlock:
    """Count how the segments of f and g overlap in one block, and what annotations contradict them."""

    f: Source
    g: Source
    origin: Triple
    volume: LabelsJob
    results: Path
    identity: str

    def __call__(self, block: Block) -> Tables:
        """Compare one block."""
        of_g = open_source(self.g).read(block.inner)
        pairs, counts = contingency(open_source(self.f).read(block.inner), of_g)
        known = open_annotations(self.volume, self.results, self.identity).read(block.inner.shifted(self.origin))
        denied, denied_counts = contingency(((known > 0) | (known == BACKGROUND)).astype(np.uint32), of_g)
        return {"pairs": pairs, "counts": counts, "denied": denied, "denied_counts": denied_counts}

    def warm(self) -> None:
        """Compare one voxel."""
        contingency(np.zeros((1, 1, 1), np.uint32), np.zeros((1, 1, 1), np.uint32))

    def memory_bytes(self, block: Block) -> int:
        """Two segmentations, the annotations with their margin, and masks."""
        return block.inner.size * 60


@dataclass(frozen=True)
class WriteBlock:
    """Write the pseudo-labels of one block and index them."""

    g: Source
    foreground: tuple[Source, Source]
    threshold: float
    origin: Triple
    lookup: Path
    identity: str
    labels: Source
    background: Source

    def __call__(self, block: Block) -> Tables:
        """Write one block; positions in its tables count from the volume's first voxel."""
        table = open_table(self.lookup, self.identity)
        labels = apply_lookup(open_source(self.g).read(block.inner), table)
        dark = [open_source(source).read(block.inner) < self.threshold * 255 for source in self.foreground]
        background = np.logical_and(*dark) & (labels == 0)
        open_source(self.labels).write(block.inner, labels)
        open_source(self.background).write(block.inner, background.astype(np.uint8))
        rng = np.random.default_rng(block.index)
        found = index_objects(labels.astype(np.uint64), block.inner.shifted(self.origin), rng)
        return found | {"background": np.array(np.count_nonzero(background))}

    def warm(self) -> None:
        """Relabel one voxel."""
        apply_lookup(np.zeros((1, 1, 1), np.uint32), open_table(self.lookup, self.identity))

    def memory_bytes(self, block: Block) -> int:
        """Labels and masks, and the order and positions of labelled voxels."""
        return block.inner.size * 80


def run_agree(job: AgreeJob, layout: Layout, execution: Execution) -> Manifest:
    """Write the pseudo-labels of one training volume.

    Notes
    -----
    Reads the training part of two segmentations, nothing of the raw data and nothing outside. Memory grows with the
    number of segments and of the pairs that overlap.
    """
    results = layout.model(job.model).pseudo(job.volume.volume)
    g, f = layout.segmentation(job.segmentation), layout.segmentation(job.other)
    plan = Plan.read(Manifest.read(g.manifest("plan")))
    inputs = {
        "labels": Manifest.read(layout.volume(job.volume.volume).manifest).digest,
        **{f"relabel/{n}": Manifest.read(s.manifest("relabel", 0)).digest for n, s in (("f", f), ("g", g))},
    }
    watch = Stopwatch("agree", digest("agree", VERSION, job.model_dump(mode="json"), inputs), inputs)
    grid = BlockGrid(plan.shape, plan.block_shape)
    # Without the limits in its identity: another limit counts nothing anew.
    counted = digest("overlaps", VERSION, job.volume.model_dump(mode="json"), inputs)
    of_f, of_g = Source(uri=f.segments), Source(uri=g.segments)
    overlaps = Blocks(grid, results.ledger("overlaps"), counted)
    run(OverlapBlock(of_f, of_g, plan.origin, job.volume, layout.root, counted), overlaps, execution)
    table = choose_segments(*load_overlaps(Records(overlaps.folder, overlaps.record_identity, len(grid))), job)
    np.save(results.lookup, np.concatenate([np.zeros(1, np.uint32), table["id"]]))
    create_arrays(plan, results)
    task = WriteBlock(
        g=of_g,
        foreground=(Source(uri=f.foreground), Source(uri=g.foreground)),
        threshold=job.background,
        origin=plan.origin,
        lookup=results.lookup,
        identity=watch.identity,
        labels=Source(uri=str(results.labels)),
        background=Source(uri=str(results.background)),
    )
    written = Blocks(grid, results.ledger("write"), watch.identity)
    summary = run(task, written, execution)
    records = list(Records(written.folder, written.record_identity, len(grid)))
    write_tables(table, records, results)
    part = Box.of_shape(plan.shape).shifted(plan.origin)
    result = {
        "job": job.model_dump(mode="json"),
        "part": [part.start, part.stop],
        "segments_f": int(Manifest.read(f.manifest("stitch")).result["segments"]),
        **count_fates(table),
        "background_voxels": sum(int(record["background"]) for record in records),
        **summary.__dict__,
    }
    warnings = [] if result["kept"] else [describe_nothing(job, result)]
    for warning in warnings:
        log.warning(warning)
    return watch.finish(results.manifest, {**result, "warnings": warnings})


def load_overlaps(records: Records) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Add up all blocks: (m, 2) pairs of f and g, (m,) voxels, and per segment of g its contradicted voxels."""
    tables = list(records)
    pairs, counts = merge_tables([(table["pairs"], table["counts"]) for table in tables])
    denied, denied_counts = merge_tables([(table["denied"], table["denied_counts"]) for table in tables])
    most = int(pairs[:, 1].max(initial=0))
    yes = denied[:, 0] == 1
    contradicted = np.bincount(denied[yes, 1].astype(np.int64), denied_counts[yes], most + 1).astype(np.int64)
    return pairs.astype(np.int64), counts, contradicted


def choose_segments(
    pairs: NDArray[np.int64], counts: NDArray[np.int64], contradicted: NDArray[np.int64], job: AgreeJob
) -> dict[str, NDArray[Any]]:
    """Decide which segments of g become pseudo-labels.

    Parameters
    ----------
    pairs : ndarray of int64, shape (m, 2)
        Ids of f and of g that share voxels, 0 included on both sides.
    counts : ndarray of int64, shape (m,)
        Voxels of each pair.
    contradicted : ndarray of int64, shape (n + 1,)
        Voxels of each id of g that annotations deny.
    job : AgreeJob
        The limits.

    Returns
    -------
    dict of ndarray
        A row for each of g's segments 1..n: `voxels`, best `iou` with a segment of f, fraction `contradicted`, and
        `id`, its number among those kept, or 0.
    """
    sizes_f = np.bincount(pairs[:, 0], counts)
    sizes_g = np.bincount(pairs[:, 1], counts, len(contradicted))
    both = (pairs > 0).all(1)
    f, g = pairs[both].T
    iou = np.zeros(len(sizes_g))
    np.maximum.at(iou, g, counts[both] / (sizes_f[f] + sizes_g[g] - counts[both]))
    denied = contradicted / np.maximum(sizes_g, 1)
    kept = (iou > job.agreement) & (sizes_g >= job.min_voxels) & (denied <= job.max_contradicted)
    columns = {"voxels": sizes_g.astype(np.int64), "iou": iou, "contradicted": denied}
    return {name: column[1:] for name, column in columns.items()} | {
        "id": np.where(kept[1:], np.cumsum(kept[1:]), 0).astype(np.uint32),
        "agreed": iou[1:] > job.agreement,
        "large": sizes_g[1:] >= job.min_voxels,
    }


def count_fates(table: dict[str, NDArray[Any]]) -> dict[str, int]:
    """Count what became of the segments of g."""
    kept, agreed, large = table["id"] > 0, table["agreed"], table["large"]
    return {
        "segments_g": len(kept),
        "agreed": int(agreed.sum()),
        "too_small": int((agreed & ~large).sum()),
        "contradicted": int((agreed & large & ~kept).sum()),
        "kept": int(kept.sum()),
        "kept_voxels": int(table["voxels"][kept].sum()),
    }


def describe_nothing(job: AgreeJob, counts: dict[str, Any]) -> str:
    """Say that there are no pseudo-objects, and why."""
    return (
        f"No segment of volume {job.volume.volume} became a pseudo-label of {job.model}: of {counts['segments_g']}, "
        f"{counts['agreed']} agree with f (IoU above {job.agreement}), of which {counts['too_small']} have under "
        f"{job.min_voxels} voxels and {counts['contradicted']} are contradicted by annotations. Train longer, annotate "
        "more, or lower pseudo_labels.agreement or min_voxels."
    )


def create_arrays(plan: Plan, results: PseudoResults) -> None:
    """Create the two arrays; where they are not as they should be, all their blocks are to be written."""
    common = store_layout(plan)
    arrays = ((results.labels, "uint32"), (results.background, "uint8"))
    if not all(store_fits(path, dtype, None, common) for path, dtype in arrays):
        shutil.rmtree(results.ledger("write"), ignore_errors=True)
        for path, dtype in arrays:
            create_zarr(str(path), dtype=dtype, overwrite=True, **common)


def write_tables(table: dict[str, NDArray[Any]], records: list[dict[str, Any]], results: PseudoResults) -> None:
    """Write what became of each segment, and a few voxels of those that were kept."""
    columns = {name: table[name] for name in ("id", "voxels", "iou", "contradicted")}
    numbers = np.arange(1, len(table["id"]) + 1, dtype=np.uint64)
    pq.write_table(pa.table({"segment": numbers, **columns}), results.segments)
    objects = merge_objects([{name: record[name] for name in record if name != "background"} for record in records])
    positions = {axis: objects["anchors"][:, i] for i, axis in enumerate("zyx")}
    pq.write_table(pa.table({"id": objects["anchor_ids"], **positions}), results.anchors)
