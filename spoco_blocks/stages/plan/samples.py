"""A few boxes of a volume, predicted and clustered to learn from them what the whole will cost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.clustering import Affinities, Context, Method, Modes, Mutex
from spoco_blocks.grid import BlockGrid, Box, triple
from spoco_blocks.kernels.downsample import downsample_mode
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.output import Output, quantised
from spoco_blocks.stages.plan.optional_samples import Cost, Options, labels_cost, raw_cost
from spoco_blocks.stages.plan.planned import Plan
from spoco_blocks.volumes import compressed_bytes

SAMPLES, DRAWN = 3, 12
# What a sample holds at most along an axis: enough to be like a block.
EDGE = 64


@dataclass(frozen=True)
class Costs:
    """What samples took and gave.

    Attributes
    ----------
    drawn, empty : int
        Boxes that were looked at, and those in which there is nothing to segment.
    predict_s, cluster_s, seek_s, relabel_s, coarsen_s : float
        Seconds for a voxel: of what the network sees, of what clustering sees, and of the volume for the others.
    store_s : float
        Seconds to compress a voxel's output.
    output_bytes, labels_bytes : float
        Compressed bytes for a voxel: of embeddings, foreground and affinities; of fragments or segments.
    gaps_s : float
        Seconds to number the background of a voxel.
    copy_s, mean_s, raw_bytes : float
        Seconds to copy a voxel of raw data and to downsample it, and its compressed bytes.
    mesh_s, mesh_bytes, mesh_pieces, skeleton_s, skeleton_bytes, skeleton_pieces : float
        Seconds, bytes and pieces of objects for a voxel of full resolution, each at most. These are 0, like the ones
        before, where nobody asks for such things.
    """

    drawn: int
    empty: int
    predict_s: float
    cluster_s: float
    seek_s: float
    relabel_s: float
    coarsen_s: float
    store_s: float
    output_bytes: float
    labels_bytes: float
    gaps_s: float = 0.0
    copy_s: float = 0.0
    mean_s: float = 0.0
    raw_bytes: float = 0.0
    mesh_s: float = 0.0
    mesh_bytes: float = 0.0
    mesh_pieces: float = 0.0
    skeleton_s: float = 0.0
    skeleton_bytes: float = 0.0
    skeleton_pieces: float = 0.0


def sample_boxes(plan: Plan, grid: BlockGrid) -> list[Box]:
    """Draw boxes from all over the volume, each from the middle of a block of a grid."""
    drawn = np.random.default_rng(0).permutation(len(grid))[:DRAWN]
    edge = triple(max(s, EDGE // s * s) for s in plan.stride)
    boxes = []
    for index in drawn.tolist():
        inner = grid.block(index).inner
        start = triple(
            a + max(0, b - a - e) // 2 // s * s
            for a, b, e, s in zip(inner.start, inner.stop, edge, plan.stride, strict=True)
        )
        boxes.append(Box(start, triple(min(a + e, b) for a, e, b in zip(start, edge, inner.stop, strict=True))))
    return boxes


def largest_values(plan: Plan) -> NDArray[np.float64]:
    """Give the largest absolute value of each embedding channel in samples of the volume, (c,)."""
    found = np.zeros(plan.predicted.channels)
    # Of a lattice of the volume, so that int8 embeddings do not depend on the blocks.
    for _, output, _ in _outputs(plan, BlockGrid(plan.shape, plan.region_shape)):
        for embeddings in (output.embeddings, output.other):
            if embeddings is not None:
                values: NDArray[Any] = np.abs(embeddings).reshape(len(found), -1)
                found = np.maximum(found, values.max(axis=1))
    return found if found.any() else np.ones_like(found)


def measure_costs(plan: Plan, method: Method, threshold: float | None, options: Options) -> Costs:
    """Predict and cluster samples; nothing is written.

    Notes
    -----
    Of the samples the median counts: the first may have to compile or load what the others find. Raw data are copied
    where there is nothing to segment as well.
    """
    taken: list[Cost] = []
    copied: list[Cost] = []
    drawn = empty = 0
    for box, output, seconds in _outputs(plan, plan.cluster_grid):
        drawn += 1
        if options.raw_pyramid:
            copied.append(raw_cost(plan, box))
        if output.empty:
            empty += 1
            continue
        found = {"predict_s": seconds / plan.predicted.seen(box).size}
        taken.append(found | _cost(plan, method, threshold, output, options))
    names = [name for name in Costs.__dataclass_fields__ if name not in ("drawn", "empty")]
    medians = dict.fromkeys(names, 0.0)
    for samples in filter(None, (taken, copied)):
        medians |= {name: statistics.median(sample[name] for sample in samples) for name in samples[0]}
    return Costs(drawn, empty, **medians)


def _outputs(plan: Plan, grid: BlockGrid) -> Iterator[tuple[Box, Output, float]]:
    """Predict samples in float16 until some of them were not empty: box, output, seconds."""
    source, wanted = replace(plan.predicted, scale=None), SAMPLES
    source.predictor()
    for box in sample_boxes(plan, grid):
        start = time.perf_counter()
        output = source.read(box)
        yield box, output, time.perf_counter() - start
        wanted -= not output.empty
        if not wanted:
            return


def _cost(plan: Plan, method: Method, threshold: float | None, output: Output, options: Options) -> Cost:
    source = Embedded(plan.predicted, plan.threshold(threshold), plan.coordinate_scale)
    clock = _Clock(output.foreground.size)
    embeddings, foreground = source.understand(output)
    other = None if output.other is None else source.placed(output.other)
    context = Context(smallest_voxels=plan.smallest_voxels, other=other, step=plan.step)
    if isinstance(method, Mutex) and output.affinities is not None:
        offsets = np.array(plan.offsets, np.int64)
        context = replace(context, affinities=Affinities(output.affinities, offsets, plan.neighbours))
    labels = method(embeddings, foreground, context)
    cluster_s = clock.lap()
    if isinstance(method, Modes):
        method.seek(
            embeddings, foreground, method.gradient_threshold(method.gradient_sample(embeddings, foreground)), 0
        )
    seek_s = clock.lap()
    embedded = [output.embeddings] if output.other is None else [output.embeddings, output.other]
    stored = [quantised(each.astype(np.float32), plan.predicted.scale) for each in embedded] + [output.foreground]
    stored += [] if output.affinities is None else [output.affinities]
    output_bytes = sum(map(compressed_bytes, stored)) / foreground.size
    store_s = clock.lap()
    labels_bytes = compressed_bytes(labels) / foreground.size
    relabel_s = clock.lap()
    downsample_mode(labels, (1, 2, 2))
    return {
        "cluster_s": cluster_s, "seek_s": seek_s, "store_s": store_s, "relabel_s": relabel_s, "coarsen_s": clock.lap(),
        "output_bytes": output_bytes, "labels_bytes": labels_bytes, **labels_cost(plan, labels, options),
    }  # fmt: skip


class _Clock:
    """Gives the seconds for a voxel since it was asked last."""

    def __init__(self, voxels: int) -> None:
        self._voxels, self._last = voxels, time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        seconds, self._last = (now - self._last) / self._voxels, now
        return seconds
