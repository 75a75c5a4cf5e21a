"""What the blocks were thought to cost, beside what they did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spoco_blocks.engine.attempts import Usage, usages
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.errors import LedgerError
from spoco_blocks.stages.estimate import disk_used, size_text
from spoco_blocks.stages.report.content import StageCost
from spoco_blocks.stages.report.wording import AT_MOST, STAGES, duration


def gather_costs(layout: Layout, segmentation: str, ran: Mapping[str, Sequence[Manifest]]) -> list[StageCost]:
    """Compare the estimate, where there is one, with the manifests, stores and logs that the stages left."""
    results = layout.segmentation(segmentation)
    try:
        estimated = Manifest.read(results.manifest("estimate")).result["stages"]
    except LedgerError:
        return []
    used = disk_used(results)
    costs = []
    for stage in estimated:
        found = [manifest.result for manifest in ran.get(stage["stage"], ())]
        known = bool(found) and all("work_s" in result for result in found)
        blocks = sum(result.get("computed", 0) + result.get("reused", 0) for result in found)
        logs = [layout.attempts(f"{stage['stage']}-{shard}", segmentation) for shard in range(len(found))]
        processors, memory_mb = _asked_and_used([usage for path in logs for usage in usages(path)])
        costs.append(
            StageCost(
                name=stage["stage"],
                blocks=(stage["blocks"], blocks if known else None),
                work_s=(stage["work_s"], sum(result["work_s"] for result in found) if known else None),
                disk_bytes=(stage["disk_bytes"], used.get(stage["stage"]) if known else None),
                processors=processors,
                memory_mb=memory_mb,
                bound=stage.get("bound", False),
            )
        )
    return costs


def cost_rows(costs: Sequence[StageCost]) -> list[dict[str, Any]]:
    """Put costs into words, planned and used in turn."""
    return [
        {
            "name": STAGES.get(cost.name, cost.name),
            "cells": [
                *_pair(cost.blocks, lambda number: f"{number:,}"),
                *_pair(cost.work_s, duration, bound=cost.bound),
                *_pair(cost.disk_bytes, size_text, bound=cost.bound),
                *_pair(cost.processors, lambda number: f"{number:.3g}"),
                *_pair(cost.memory_mb, lambda number: size_text(number * 2**20)),
            ],
        }
        for cost in costs
    ]


def _pair(values: tuple[Any, Any], text: Any, *, bound: bool = False) -> tuple[str, str]:
    planned, used = ("n/a" if value is None else text(value) for value in values)
    return f"{AT_MOST} {planned}" if bound else planned, used


def _asked_and_used(found: Sequence[Usage]) -> tuple[tuple[float | None, float | None], tuple[int | None, int | None]]:
    """Give processors, weighted by how long they were held, and memory; a job asks for more in a later attempt."""
    seconds = sum(usage.seconds for usage in found)
    if not seconds:
        return (None, None), (None, None)
    asked = sum(usage.workers * usage.seconds for usage in found) / seconds
    used = sum(usage.busy_s for usage in found) / seconds
    largest = max(found, key=lambda usage: usage.memory_mb)
    return (asked, used), (largest.asked_mb or None, largest.memory_mb)
