"""Puts the content into the page."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from spoco_blocks.stages.report import wording
from spoco_blocks.stages.report.content import ReportContent
from spoco_blocks.stages.report.costs import cost_rows
from spoco_blocks.stages.report.figures import curve, histogram
from spoco_blocks.stages.report.images import hex_colour, label_colours
from spoco_blocks.stages.report.seams import recut_text, seam_text, worst_seams
from spoco_blocks.stages.report.viewer import viewer
from spoco_blocks.stages.report.wording import TIMES, counted, duration, number

Rows = list[dict[str, Any]]

_LARGEST = 12
_VALIDATION = "validation_"


def render(content: ReportContent) -> str:
    """Give the whole page as HTML that needs nothing from anywhere else."""
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("template.html").render(
        c=content,
        css=Markup((folder / "report.css").read_text(encoding="utf-8")),
        js=Markup((folder / "report.js").read_text(encoding="utf-8")),
        whole=wording.whole(content),
        summary=wording.summary(content),
        facts=_facts(content),
        tiles=_tiles(content),
        viewer=viewer(content),
        napari=shlex.join(["napari", "--plugin", "napari-ome-zarr", *content.stores]),
        neuroglancer=shlex.join(["spoco-blocks", "view", content.segmentation]),
        scores=_scores(content),
        sizes=_sizes(content),
        largest=_largest(content),
        seams=seam_text(content.seams),
        recut=recut_text(content.recut),
        worst_seams=worst_seams(content.seams),
        curves=_curves(content),
        times=_times(content),
        costs=cost_rows(content.costs),
        total=duration(sum(s.seconds for s in content.stages)),
        tree=_tree(content.settings),
    )


def _facts(content: ReportContent) -> list[tuple[str, str]]:
    size = content.voxel_size_nm
    facts = [("Volume", content.volume), ("Model", content.model)]
    if size is None:
        facts.append(("Pixel size" if content.flat else "Voxel size", "not known"))
    elif content.flat:
        facts.append((f"Pixel size (y{TIMES}x)", TIMES.join(number(v) for v in size[1:]) + " nm"))
    else:
        facts.append((f"Voxel size (z{TIMES}y{TIMES}x)", TIMES.join(number(v) for v in size) + " nm"))
    if content.finished:
        facts.append(("Finished", content.finished.replace("T", " ").replace("Z", " UTC")))
    return facts


def _tiles(content: ReportContent) -> Rows:
    """Headline figures; without truth the scores give way to what is known."""
    tiles: Rows = []
    scores = content.scores or {}
    for key, name, text in (
        ("ap50", "AP50", "objects found, of all found, missed or invented"),
        ("sbd", "SBD", "mean overlap of objects and segments"),
    ):
        if key in scores:
            value = float(scores[key])
            tiles.append({"name": name, "value": f"{value:.2f}", "text": text, "share": _percent(value)})
    objects = f"{len(content.objects):,}"
    if "n_truth" in scores and content.scored is None:
        tiles.append({"name": "Objects", "value": objects, "text": f"found; {int(scores['n_truth']):,} in the truth"})
    else:
        tiles.append({"name": "Objects", "value": objects, "text": f"found in {wording.whole(content)}"})
    if len(content.objects):
        voxels = content.objects.voxels
        median = float(np.median(voxels))
        factor, unit = wording.size_unit(content, median)
        size = number(median * factor)
        fits = len(size) <= 6
        tiles.append({"name": "Median size", "value": size, "unit": unit, "text": "of an object", "long": not fits})
        if not scores:
            share = number(100 * float(voxels.sum()) / math.prod(content.shape))
            where = f"of {wording.whole(content)} lies in objects"
            tiles.append({"name": "Covered", "value": share, "unit": "%", "text": where})
    if content.stages:
        seconds = sum(stage.seconds for stage in content.stages)
        tiles.append({"name": "Time", "value": duration(seconds), "text": "for all stages together", "long": True})
    return tiles


def _percent(value: float) -> float:
    return round(100 * min(max(value, 0.0), 1.0), 1)


def _scores(content: ReportContent) -> Rows:
    rows: Rows = []
    for text in wording.SCORES:
        value = (content.scores or {}).get(text.key)
        if value is None:
            continue
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
        share = _percent(value) if text.share else None
        rows.append({"text": text, "value": shown, "share": share})
    means = (content.scores or {}).get("per_image", {})
    for text in wording.SCORES:
        if text.key in means:
            value, share = means[text.key], _percent(means[text.key]) if text.share else None
            words = f"Each image scored for itself, mean of {means['images']:,}."
            renamed = replace(text, name=f"{text.name} per image", text=words)
            rows.append({"text": renamed, "value": f"{value:.3f}", "share": share})
    return rows


def _sizes(content: ReportContent) -> dict[str, Any] | None:
    voxels = content.objects.voxels
    if not len(voxels):
        return None
    known = content.voxel_size_nm is not None
    low, median, high = (float(v) for v in np.percentile(voxels, (5, 50, 95)))
    factor, unit = wording.size_unit(content, median)
    voxel = "pixels" if content.flat else "voxels"
    return {
        "figure": histogram(voxels, factor, unit),
        "median": f"{number(median * factor)} {unit}" + (f" ({number(median)} {voxel})" if known else ""),
        "range": f"{number(low * factor)} to {number(high * factor)} {unit}",
        "border": int(np.count_nonzero(content.objects.touches_border)),
    }


def _largest(content: ReportContent) -> Rows:
    objects, size = content.objects, content.voxel_size_nm
    factor, unit = wording.size_unit(content, float(objects.voxels.max(initial=0)))
    rows: Rows = []
    for row in np.argsort(-objects.voxels.astype(np.int64), kind="stable")[:_LARGEST].tolist():
        extent = objects.box[row, 3:] - objects.box[row, :3]
        shown = slice(1, 3) if content.flat else slice(0, 3)
        if size is None:
            across = TIMES.join(f"{int(v):,}" for v in extent[shown])
            where = ", ".join(f"{(a + b) / 2:,.0f}" for a, b in objects.box[row].reshape(2, 3).T[shown].tolist())
        else:
            across = TIMES.join(number(v / 1000) for v in (extent * size)[shown].tolist())
            where = ", ".join(number(float(v) / 1000) for v in objects.centroid_nm[row][shown])
        rows.append(
            {
                "id": int(objects.id[row]),
                "colour": hex_colour(label_colours(objects.id[row : row + 1])[0]),
                "voxels": f"{int(objects.voxels[row]):,}",
                "size": f"{number(float(objects.voxels[row]) * factor)} {unit}" if size else "",
                "extent": across,
                "centre": where,
                "image": int(objects.box[row, 0]) if content.independent_images else None,
                "border": bool(objects.touches_border[row]),
            }
        )
    return rows


def _curves(content: ReportContent) -> Rows:
    """One small chart per column, the known ones first; a column's validation is drawn into its chart."""
    every = dict.fromkeys(name for _, columns in content.curves for name in columns)
    names = [name for name in every if not name.startswith(wording.NOT_SHOWN)]
    iterations = np.array([iteration for iteration, _ in content.curves], float)
    known = list(wording.CURVES)
    rows: Rows = []
    for name in sorted(names, key=lambda name: known.index(name) if name in known else len(known)):
        values = _column(content, name)
        finite = values[np.isfinite(values)]
        if not len(finite) or name.removeprefix(_VALIDATION) in set(names) - {name}:
            continue
        title, text = wording.CURVES.get(name, (name.replace("_", " ").capitalize(), ""))
        last = number(float(finite[-max(1, len(finite) // 20) :].mean()))
        check = _column(content, _VALIDATION + name)
        figure = curve(iterations, values, check)
        rows.append({"title": title, "text": text, "last": last, "figure": figure, "checked": np.isfinite(check).any()})
    return rows


def _column(content: ReportContent, name: str) -> NDArray[np.float64]:
    return np.array([columns.get(name, math.nan) for _, columns in content.curves], float)


def _times(content: ReportContent) -> Rows:
    longest = max((stage.seconds for stage in content.stages), default=0) or 1
    rows: Rows = []
    for stage in content.stages:
        note = ""
        if len(stage.shards) > 1:
            note = f"longest of {counted(len(stage.shards), 'shard')}; {duration(sum(stage.shards))} of work in all"
        rows.append(
            {
                "name": wording.STAGES.get(stage.name, stage.name),
                "share": _percent(stage.seconds / longest),
                "time": duration(stage.seconds),
                "note": note,
            }
        )
    return rows


def _tree(settings: Any) -> Any:
    """Settings as nested (name, leaf text or list of the same)."""
    if not isinstance(settings, Mapping):
        if isinstance(settings, list | tuple) and any(isinstance(v, Mapping) for v in settings):
            return [(str(place + 1), _tree(value)) for place, value in enumerate(settings)]
        return _leaf(settings)
    return [(str(name), _tree(value)) for name, value in settings.items()]


def _leaf(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return TIMES.join(_leaf(v) for v in value) if value else "none"
    return str(value)
