"""The page of an annotation curve: two charts and the table behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from spoco_blocks.stages.report.score_chart import Point, Series, score_chart
from spoco_blocks.stages.report.wording import SCORES, number

DRAWN = ("ap50", "sbd")
NAMES = {"full": "Full method", "pull-push": "Pull and push only"}


@dataclass(frozen=True)
class Trained:
    """One training of the curve.

    Attributes
    ----------
    variant : str
        "full" or "pull-push".
    fraction : float
        Of the objects, that counted as annotated.
    seed : int
        Of the choice of objects and of training.
    annotated : int
        Objects that were annotated.
    scores : dict
        As in scores.json.
    """

    variant: str
    fraction: float
    seed: int
    annotated: int
    scores: Mapping[str, Any]


def summarise(trained: Sequence[Trained], key: str) -> dict[str, list[Point]]:
    """Give mean and range of a score over seeds, by variant and rising number of annotated objects."""
    points: dict[str, list[Point]] = {}
    groups = dict.fromkeys((run.variant, run.fraction) for run in sorted(trained, key=lambda run: run.fraction))
    for variant, fraction in groups:
        runs = [run for run in trained if (run.variant, run.fraction) == (variant, fraction)]
        values = [float(run.scores[key]) for run in runs]
        objects = float(np.mean([run.annotated for run in runs]))
        points.setdefault(variant, []).append(Point(objects, float(np.mean(values)), min(values), max(values)))
    return points


def annotation_page(segmentation: str, trained: Sequence[Trained], baseline: Mapping[str, Any]) -> str:
    """Give the page as HTML that needs nothing from anywhere else.

    Parameters
    ----------
    segmentation : str
        What was varied.
    trained : sequence of Trained
        All trainings.
    baseline : mapping
        Scores of the classical chain.
    """
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    texts = {text.key: text for text in SCORES}
    charts: list[dict[str, Any]] = []
    rows: dict[tuple[str, int], dict[str, str]] = {}
    for key in DRAWN:
        points = summarise(trained, key)
        series = [Series(NAMES[variant], variant, points[variant]) for variant in NAMES if variant in points]
        charts.append({"text": texts[key], "figure": score_chart(texts[key].name, series, float(baseline[key]))})
        for one in series:
            for place, point in enumerate(one.points):
                row = rows.setdefault((one.name, place), {"name": one.name, "objects": number(point.objects)})
                row[key] = f"{point.mean:.3f} ({point.low:.3f} to {point.high:.3f})"
    return environment.get_template("annotation_curve.html").render(
        css=Markup((folder / "report.css").read_text(encoding="utf-8")),
        segmentation=segmentation,
        seeds=len({run.seed for run in trained}),
        charts=charts,
        names=NAMES,
        drawn=DRAWN,
        rows=list(rows.values()),
        baseline={key: f"{float(baseline[key]):.3f}" for key in DRAWN},
    )
