"""What the blocks were thought to cost, beside what they did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spoco_blocks.engine.layout import SegmentationResults
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.errors import LedgerError
from spoco_blocks.stages.estimate import disk_used, size_text
from spoco_blocks.stages.report.content import StageCost
from spoco_blocks.stages.report.wording import STAGES, duration


def gather_costs(results: SegmentationResults, ran: Mapping[str, Sequence[Manifest]]) -> list[StageCost]:
    """Compare the estimate, where there is one, with the manifests and stores that the stages left."""
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
        costs.append(
            StageCost(
                name=stage["stage"],
                blocks=(stage["blocks"], blocks if known else None),
                work_s=(stage["work_s"], sum(result["work_s"] for result in found) if known else None),
                disk_bytes=(stage["disk_bytes"], used.get(stage["stage"]) if known else None),
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
                *_pair(cost.work_s, duration),
                *_pair(cost.disk_bytes, size_text),
            ],
        }
        for cost in costs
    ]


def _pair(values: tuple[Any, Any], text: Any) -> tuple[str, str]:
    planned, used = values
    return text(planned), "n/a" if used is None else text(used)
