"""Stage `annotation_curve`: score against number of annotated objects, as a table and a page."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import Any

from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.manifest import Manifest, Stopwatch, write_atomically
from spoco_blocks.kernels.scores import Scores
from spoco_blocks.settings.annotation_curve import CurveRun
from spoco_blocks.settings.annotation_jobs import AnnotationCurveJob
from spoco_blocks.settings.jobs import digest
from spoco_blocks.stages.report.annotation_page import DRAWN, Trained, annotation_page, summarise

VERSION = 1


def run_annotation_curve(job: AnnotationCurveJob, layout: Layout) -> Manifest:
    """Gather the scores of all trainings and draw them.

    Raises
    ------
    LedgerError
        When the stages before have not run.
    """
    results = layout.annotation_curve
    baseline = Manifest.read(results.baseline)
    trained = [gather(run, layout) for run in job.runs]
    inputs = {"annotation_baseline": baseline.digest} | {
        f"evaluate/{run.segmentation}": Manifest.read(layout.segmentation(run.segmentation).manifest("evaluate")).digest
        for run in job.runs
    }
    watch = Stopwatch(
        "annotation_curve", digest("annotation_curve", VERSION, job.model_dump(mode="json"), inputs), inputs
    )
    write_atomically(results.table, table(trained))
    write_atomically(results.page, annotation_page(job.segmentation, trained, baseline.result["scores"]))
    result = {
        "job": job.model_dump(mode="json"),
        "runs": [asdict(run) for run in trained],
        "baseline": baseline.result,
        "curve": {
            key: {variant: [asdict(point) for point in points] for variant, points in summarise(trained, key).items()}
            for key in DRAWN
        },
    }
    return watch.finish(results.manifest, result)


def gather(run: CurveRun, layout: Layout) -> Trained:
    """Read what one training reached, and how many objects it was given."""
    annotated = sum(Manifest.read(layout.volume(volume).manifest).result["annotated"] for volume in run.volumes)
    scores = json.loads(layout.segmentation(run.segmentation).scores.read_text())
    return Trained(run.variant, run.fraction, run.seed, annotated, scores)


def table(trained: list[Trained]) -> str:
    """Give one CSV line per training."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = list(Scores.__dataclass_fields__)
    writer.writerow(["variant", "fraction", "seed", "annotated", *names])
    rows: list[list[Any]] = [
        [run.variant, run.fraction, run.seed, run.annotated, *(run.scores[name] for name in names)] for run in trained
    ]
    writer.writerows(rows)
    return file.getvalue()
