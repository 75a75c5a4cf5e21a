"""One HTML file that shows a segmentation, its scores and how it came about."""

from __future__ import annotations

from pathlib import Path

from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.manifest import write_atomically
from spoco_blocks.settings.jobs import ReportJob
from spoco_blocks.stages.report.content import ObjectTable, Picture, ReportContent, StageTime
from spoco_blocks.stages.report.page import render


def write_report(content: ReportContent, path: Path) -> None:
    """Write the report; it needs no network and no other file."""
    write_atomically(path, render(content))


def run_report(job: ReportJob, layout: Layout) -> None:
    """Gather what the stages left behind and write the report of a segmentation."""
    from spoco_blocks.stages.report.gather import gather

    write_report(gather(layout, job), layout.segmentation(job.segmentation).report)


__all__ = ["ObjectTable", "Picture", "ReportContent", "StageTime", "run_report", "write_report"]
