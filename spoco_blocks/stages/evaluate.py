"""Stage `evaluate`: scores against complete labels, from one contingency table that blocks add up to.

Independent images are also scored one by one, as benchmarks of 2D images do, and the scores averaged.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.ledger import Records, Tables
from spoco_blocks.engine.manifest import Manifest, Stopwatch, write_atomically
from spoco_blocks.engine.runner import Blocks, run
from spoco_blocks.grid import Block, BlockGrid, Box
from spoco_blocks.kernels.contingency import contingency, merge_tables
from spoco_blocks.kernels.gaps import number_gaps
from spoco_blocks.kernels.scores import scores
from spoco_blocks.settings.jobs import EvaluateJob, digest
from spoco_blocks.settings.sections import Source, TruthSettings
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.sources import chosen_part, id_source, open_like, open_source
from spoco_blocks.volumes import read_instances

VERSION = 2
# What is averaged over images. Voxel scores are left out: an image without objects has none.
OF_IMAGES = ("sbd", "dic", "ap50", "ap75", "map", "f1_50", "pq")

Table = tuple[NDArray[np.uint64], NDArray[np.int64]]


@dataclass(frozen=True)
class CompareBlock:
    """Count how truth and segments overlap in one block.

    Attributes
    ----------
    truth, segments : Source
        What is compared.
    region : Box
        Where.
    ignore : Source or None
        Mask of voxels that are not counted.
    gaps, planar : bool
        Whether to number the gaps between segments as stage `cluster` does; whether z counts images.
    """

    truth: Source
    segments: Source
    region: Box
    ignore: Source | None = None
    gaps: bool = False
    planar: bool = False

    def __call__(self, block: Block) -> Tables:
        """Compare one block."""
        part = block.inner.intersection(self.region)
        truth = read_instances(open_source(self.truth), part)
        segments = self._segments(block, part)
        if self.ignore is not None:
            counted = open_source(self.ignore).read(part) == 0
            truth, segments = truth * counted, segments * counted
        pairs, counts = contingency(truth, segments)
        return {"pairs": pairs, "counts": counts}

    def _segments(self, block: Block, part: Box) -> NDArray[Any]:
        if not self.gaps:
            return open_source(self.segments).read(part)
        pieces = number_gaps(open_source(self.segments).read(block.inner), planar=self.planar)
        return pieces[part.relative_to(block.inner.start).slices]

    def warm(self) -> None:
        """Compare one voxel."""
        one = Box((0, 0, 0), (1, 1, 1))
        contingency(read_instances(open_source(self.truth), one), open_source(self.segments).read(one))
        if self.gaps:
            number_gaps(np.zeros((1, 1, 1), np.uint32), planar=self.planar)

    def memory_bytes(self, block: Block) -> int:
        """Truth, segments and mask."""
        return block.inner.size * 40


def run_evaluate(job: EvaluateJob, layout: Layout, execution: Execution, content: str = "") -> Manifest:
    """Score a segmentation; without truth the scores say so. `content` is a fingerprint of the truth's store."""
    results = layout.segmentation(job.segmentation)
    plan = Plan.read(Manifest.read(results.manifest("plan")))
    inputs = {"relabel": Manifest.read(results.manifest("relabel", 0)).digest}
    watch = Stopwatch("evaluate", digest("evaluate", VERSION, job.model_dump(mode="json"), inputs, content), inputs)
    described = {"job": job.model_dump(mode="json")}
    if job.truth is None:
        write_atomically(results.scores, json.dumps({"note": "no truth is configured for this volume"}) + "\n")
        return watch.finish(results.manifest("evaluate"), described)
    compared = compare(job.truth, results.segments, plan, results.ledger("evaluate"), watch.identity, execution)
    found = compared.scores(compared.tables)
    write_atomically(results.scores, json.dumps(found, indent=1) + "\n")
    region, chosen = compared.region, compared.chosen
    scored = {"scores": found, "region": [region.start, region.stop], "images": chosen}
    return watch.finish(results.manifest("evaluate"), {**described, **scored})


@dataclass(frozen=True)
class Compared:
    """What blocks counted.

    Attributes
    ----------
    region : Box
        What is scored.
    chosen : tuple of int or None
        Images that are scored; None = all.
    numbers : tuple of int
        Blocks that reach into it, in rising order.
    tables : list of Table
        Contingency of each of them.
    min_voxels : int
        Truth objects under this size are left out.
    images : tuple of int or None
        The image that each block is of, where they are independent.
    """

    region: Box
    chosen: tuple[int, ...] | None
    numbers: tuple[int, ...]
    tables: list[Table]
    min_voxels: int
    images: tuple[int, ...] | None

    def scores(self, tables: list[Table]) -> dict[str, Any]:
        """Score the tables of these blocks: those that were counted, or the same with other segment ids."""
        found: dict[str, Any] = asdict(scores(*merge_tables(tables), min_voxels=self.min_voxels))
        if self.images is not None:
            found["per_image"] = mean_scores(zip(self.images, tables, strict=True), self.min_voxels)
        return found


def compare(
    settings: TruthSettings,
    store: str,
    plan: Plan,
    folder: Path,
    identity: str,
    execution: Execution,
    *,
    gaps: bool = False,
) -> Compared:
    """Count in blocks how the truth and what a store holds overlap, if wanted with the gaps between fragments."""
    stored = Source(uri=store)
    images = plan.planar and plan.shape[0] > 1
    truth = _with_axes(id_source(settings), images)
    ignore = None if settings.ignore is None else _with_axes(id_source(settings.ignore), images)
    segments = open_source(stored)
    open_like(truth, segments, "truth")
    region, chosen = chosen_part(settings, segments, independent=images)
    grid = BlockGrid(plan.shape, plan.block_shape)
    numbers = tuple(n for n in grid.touching(region) if chosen is None or grid.block(n).inner.start[0] in chosen)
    blocks = Blocks(grid, folder, identity, only=numbers)
    run(CompareBlock(truth, stored, region, ignore, gaps, plan.planar), blocks, execution)
    records = Records(blocks.folder, blocks.record_identity, 0)
    tables = [(record["pairs"], record["counts"]) for record in map(records.of, numbers)]
    of_image = tuple(grid.block(n).inner.start[0] for n in numbers) if images else None
    return Compared(region, chosen, numbers, tables, settings.min_voxels, of_image)


def _with_axes(source: Source, images: bool) -> Source:
    """Say that the first axis counts images, where nobody said; the segmentation's store cannot."""
    return source.model_copy(update={"axes": "nyx"}) if images and source.axes is None else source


def mean_scores(tables: Iterable[tuple[int, Table]], min_voxels: int) -> dict[str, float]:
    """Score each image for itself and average, every image alike however many objects it holds.

    Parameters
    ----------
    tables : iterable of (int, table)
        Number of the image, in rising order, and a table of a part of it.
    min_voxels : int
        Truth objects under this size are left out.

    Returns
    -------
    dict
        Number of `images`, and the means of `OF_IMAGES`; that of `dic` is the |DiC| of the CVPPP challenge.
    """
    each = [
        scores(*merge_tables([table for _, table in parts]), min_voxels=min_voxels)
        for _, parts in groupby(tables, key=lambda part: part[0])
    ]
    means = {name: float(np.mean([getattr(of_image, name) for of_image in each])) for name in OF_IMAGES}
    return {"images": len(each), **means}


def in_words(found: Mapping[str, Any]) -> str:
    """Put the scores that benchmarks report into a line for the terminal."""
    voi = f"VOI {found['voi_split']:.2f} + {found['voi_merge']:.2f} bits"
    line = f"{_figures(found)}, {voi}; {found['n_segments']} segments for {found['n_truth']} objects"
    if "per_image" not in found:
        return line
    return f"mean of {found['per_image']['images']} images: {_figures(found['per_image'])}\nall together: {line}"


def _figures(found: Mapping[str, Any]) -> str:
    dic = f"{found['dic']:.2f}".removesuffix(".00")
    precision = ", ".join(
        f"{name} {found[key]:.3f}" for name, key in (("AP50", "ap50"), ("AP75", "ap75"), ("mAP", "map"))
    )
    return f"SBD {found['sbd']:.3f}, |DiC| {dic}, {precision}"
