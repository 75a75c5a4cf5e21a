"""A few boxes of a volume, predicted to learn from them what the whole will be like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.grid import Box, triple
from spoco_blocks.stages.output import Output
from spoco_blocks.stages.plan.planned import Plan

SAMPLES, DRAWN = 3, 12
# What a sample holds at most along an axis: enough to be like a block.
EDGE = 64


def sample_boxes(plan: Plan) -> list[Box]:
    """Draw boxes from all over the volume, each the first part of a block."""
    grid = plan.cluster_grid
    drawn = np.random.default_rng(0).permutation(len(grid))[:DRAWN]
    edge = triple(max(s, EDGE // s * s) for s in plan.stride)
    boxes = []
    for index in drawn.tolist():
        inner = grid.block(index).inner
        # From the middle on, where the block is larger: corners of a volume are often empty.
        start = triple(
            a + max(0, b - a - e) // 2 // s * s
            for a, b, e, s in zip(inner.start, inner.stop, edge, plan.stride, strict=True)
        )
        stop = triple(min(a + e, b) for a, e, b in zip(start, edge, inner.stop, strict=True))
        boxes.append(Box(start, stop))
    return boxes


def largest_values(plan: Plan) -> NDArray[np.float64]:
    """Give the largest absolute value of each embedding channel in samples of the volume, (c,)."""
    found = np.zeros(plan.predicted.channels)
    for _, output in outputs(plan):
        values: NDArray[Any] = np.abs(output.embeddings).reshape(len(found), -1)
        found = np.maximum(found, values.max(axis=1))
    return found if found.any() else np.ones_like(found)


def outputs(plan: Plan) -> Iterator[tuple[Box, Output]]:
    """Predict samples in float16, until some of them were not empty."""
    source, wanted = replace(plan.predicted, scale=None), SAMPLES
    for box in sample_boxes(plan):
        output = source.read(box)
        yield box, output
        wanted -= not output.empty
        if not wanted:
            return
