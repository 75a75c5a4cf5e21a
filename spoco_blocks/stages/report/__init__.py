"""One HTML file that shows a segmentation, its scores and how it came about."""

from __future__ import annotations

from pathlib import Path

from spoco_blocks.engine.manifest import write_atomically
from spoco_blocks.stages.report.content import ObjectTable, Picture, ReportContent, StageTime
from spoco_blocks.stages.report.page import render


def write_report(content: ReportContent, path: Path) -> None:
    """Write the report; it needs no network and no other file."""
    write_atomically(path, render(content))


__all__ = ["ObjectTable", "Picture", "ReportContent", "StageTime", "write_report"]
