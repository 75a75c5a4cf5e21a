"""Charts as SVG that takes its colours from the page, so that one picture serves light, dark and print."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from spoco_blocks.stages.report.wording import number

Floats = NDArray[np.float64]

_POINTS = 240


def smoothed(values: Floats, fraction: float = 0.06) -> Floats:
    """Give a running mean over a fraction of the curve; at the ends over what is there."""
    radius = max(1, round(len(values) * fraction / 2))
    kernel = np.hanning(2 * radius + 3)[1:-1]
    # "full" and cut: "same" has the length of the kernel where that is the longer
    sums = np.convolve(values, kernel)[radius : radius + len(values)]
    return sums / np.convolve(np.ones_like(values), kernel)[radius : radius + len(values)]


def curve(iterations: Floats, values: Floats, validation: Floats) -> Markup:
    """Draw one learning curve: what was measured, faint, its running mean, and the validation as dots."""
    known, checked = np.isfinite(values), np.isfinite(validation)
    x, y = iterations[known], values[known]
    width, height, left, right, top, bottom = 320, 150, 46, 12, 10, 24
    mean = smoothed(y) if len(y) >= 20 else y
    low, high = _value_range(y, np.concatenate([mean, validation[checked]]))
    last = max(float(iterations[-1]), 1.0)

    def across(v: Any) -> Any:
        return left + v / last * (width - left - right)

    def down(v: Any) -> Any:
        return top + (high - np.clip(v, low, high)) / (high - low) * (height - top - bottom)

    dots = zip(across(iterations[checked]).tolist(), down(validation[checked]).tolist(), strict=True)
    parts = [
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="learning curve">',
        *(_gridline(left, width - right, float(down(v)), number(v, 2)) for v in (low, (low + high) / 2, high)),
        f'<path class="faint" d="{_path(across(x), down(y))}"/>' if len(y) >= 20 else "",
        f'<path class="line" d="{_path(across(x), down(mean))}"/>',
        f'<path class="check" d="{_path(across(iterations[checked]), down(validation[checked]))}"/>'
        if checked.any()
        else "",
        *(f'<circle class="check-dot" cx="{a:.1f}" cy="{b:.1f}" r="2.6"/>' for a, b in dots),
        f'<circle class="dot" cx="{across(x[-1]):.1f}" cy="{float(down(mean[-1])):.1f}" r="3.2"/>',
        f'<text x="{left}" y="{height - 6}">0</text>',
        f'<text x="{width - right}" y="{height - 6}" text-anchor="end">{last:,.0f}</text>',
        "</svg>",
    ]
    return Markup("".join(parts))


def _value_range(measured: Floats, drawn: Floats) -> tuple[float, float]:
    """Range of the value axis: from 0 where that costs little, and not stretched by single outliers."""
    low = float(min(measured.min(), drawn.min()))
    high = float(max(np.percentile(measured, 99.5), drawn.max()))
    low = 0.0 if 0 < low < 0.5 * high else low
    return low, high if high > low else low + max(abs(low), 1.0)


def _gridline(left: float, right: float, y: float, text: str) -> str:
    return (
        f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    )


def _path(x: Floats, y: Floats) -> str:
    every = max(1, len(x) // _POINTS)
    rows = [*range(0, len(x) - 1, every), len(x) - 1]
    return "M" + "L".join(f"{x[i]:.1f} {y[i]:.1f}" for i in rows)


def histogram(voxels: NDArray[Any], voxel_size: float, unit: str) -> Markup:
    """Draw how many objects there are of each size, on a logarithmic scale in `unit` below and in voxels above."""
    width, height, left, right, top, bottom = 560, 290, 44, 16, 48, 50
    logs = np.log10(np.maximum(np.asarray(voxels, float), 1))
    start, stop = float(logs.min()), float(logs.max())
    if stop - start < 0.3:
        start, stop = (start + stop) / 2 - 0.25, (start + stop) / 2 + 0.25
    bins = int(np.clip(np.ceil(1.6 * np.sqrt(len(logs))), 5, 28))
    counts, edges = np.histogram(logs, bins=bins, range=(start, stop))
    tallest = int(counts.max())

    def across(log_voxels: float) -> float:
        return left + (log_voxels - start) / (stop - start) * (width - left - right)

    def down(count: float) -> float:
        return top + (1 - count / tallest) * (height - top - bottom)

    parts = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="object sizes">']
    parts += [_gridline(left, width - right, down(v), f"{v:,}") for v in _count_ticks(tallest)]
    for count, a, b in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if count:
            title = f"{number(10**a * voxel_size)} to {number(10**b * voxel_size)} {unit}: {count:,}"
            parts.append(
                f'<rect class="bar" x="{across(a) + 1:.1f}" y="{down(count):.1f}" rx="2" '
                f'width="{across(b) - across(a) - 2:.1f}" height="{height - bottom - down(count):.1f}">'
                f"<title>{title}</title></rect>"
            )
    parts += _size_axis(across, start, stop, voxel_size, height - bottom + 18)
    parts.append(f'<text class="axis" x="{width - right}" y="{height - 6}" text-anchor="end">Size in {unit}</text>')
    voxel_unit = {"²": "pixels", "³": "voxels"}.get(unit[-1])
    if voxel_unit:
        parts += _size_axis(across, start, stop, 1.0, top - 8)
        parts.append(f'<text class="axis" x="{width - right}" y="14" text-anchor="end">in {voxel_unit}</text>')
    parts.append(f'<text class="axis" x="{left - 36}" y="14">Objects</text>')
    median = across(float(np.median(logs)))
    parts.append(f'<line class="median" x1="{median:.1f}" x2="{median:.1f}" y1="{top}" y2="{height - bottom}"/></svg>')
    return Markup("".join(parts))


def _count_ticks(tallest: int) -> list[int]:
    step = max(1, tallest // 4)
    magnitude = 10 ** (len(str(step)) - 1)
    step = -(-step // magnitude) * magnitude
    return list(range(0, tallest + 1, step))


def _size_axis(across: Callable[[float], float], start: float, stop: float, unit: float, y: float) -> list[str]:
    """Ticks at 1, 2, 5, 10 … of the unit, thinned until they do not touch."""
    shift = float(np.log10(unit))
    decades = range(int(np.floor(start + shift)), int(np.ceil(stop + shift)) + 1)
    parts: list[str] = []
    for mantissas in ((1, 2, 5), (1, 3), (1,)):
        values = [m * 10.0**d for d in decades for m in mantissas if start <= np.log10(m) + d - shift <= stop]
        parts = [
            f'<text x="{across(float(np.log10(v)) - shift):.1f}" y="{y}" text-anchor="middle">{number(v)}</text>'
            for v in values
        ]
        if len(values) <= 8:
            break
    return parts
