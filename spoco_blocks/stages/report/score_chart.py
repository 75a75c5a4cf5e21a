"""Scores against number of annotated objects: mean and range over seeds, beside a constant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log10

from markupsafe import Markup, escape

from spoco_blocks.stages.report.wording import number

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 560, 330, 46, 18, 14, 46


@dataclass(frozen=True)
class Point:
    """One score at one number of annotated objects.

    Attributes
    ----------
    objects : float
        Annotated objects, the mean over seeds.
    mean, low, high : float
        The score: mean and range over seeds.
    """

    objects: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """What is drawn in one colour.

    Attributes
    ----------
    name : str
        What a pointer over a point is told.
    style : str
        Class of the page's style sheet.
    points : sequence of Point
        By rising number of objects.
    """

    name: str
    style: str
    points: Sequence[Point]


def score_chart(title: str, series: Sequence[Series], baseline: float) -> Markup:
    """Draw a score between 0 and 1 on a logarithmic axis of objects.

    Parameters
    ----------
    title : str
        Name of the score.
    series : sequence of Series
        Each with at least one point.
    baseline : float
        Drawn as a dashed line.
    """
    counts = [point.objects for one in series for point in one.points]
    start, stop = log10(min(counts)), log10(max(counts))
    if stop - start < 0.3:
        start, stop = start - 0.3, stop + 0.3

    def across(objects: float) -> float:
        return _LEFT + (log10(objects) - start) / (stop - start) * (_WIDTH - _LEFT - _RIGHT)

    def down(score: float) -> float:
        return _TOP + (1 - score) * (_HEIGHT - _TOP - _BOTTOM)

    right, floor = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">']
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{down(tick):.1f}" y2="{down(tick):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{down(tick) + 4:.1f}" text-anchor="end">{tick:.1f}</text>')
    parts += [
        f'<text x="{across(objects):.1f}" y="{floor + 18}" text-anchor="middle">{number(objects)}</text>'
        for objects in _apart(sorted(set(counts)), across)
    ]
    parts.append(f'<text class="axis" x="{right}" y="{_HEIGHT - 6}" text-anchor="end">Annotated objects</text>')
    parts.append(
        f'<line class="baseline" x1="{_LEFT}" x2="{right}" y1="{down(baseline):.1f}" y2="{down(baseline):.1f}">'
        f"<title>classical chain: {baseline:.3f}</title></line>"
    )
    for one in series:
        path = "L".join(f"{across(p.objects):.1f} {down(p.mean):.1f}" for p in one.points)
        parts.append(f'<g class="{one.style}"><path d="M{path}"/>')
        for p in one.points:
            x = f"{across(p.objects):.1f}"
            parts.append(f'<line x1="{x}" x2="{x}" y1="{down(p.low):.1f}" y2="{down(p.high):.1f}"/>')
            text = f"{one.name}, {number(p.objects)} objects: {p.mean:.3f} ({p.low:.3f} to {p.high:.3f})"
            parts.append(f'<circle cx="{x}" cy="{down(p.mean):.1f}" r="4"><title>{escape(text)}</title></circle>')
        parts.append("</g>")
    return Markup("".join([*parts, "</svg>"]))


def _apart(values: list[float], across: Callable[[float], float], least: float = 26.0) -> list[float]:
    """Leave out ticks that would touch the one before."""
    kept: list[float] = []
    for value in values:
        if not kept or across(value) - across(kept[-1]) >= least:
            kept.append(value)
    return kept
