"""Deciding again: what other thresholds would give, from the records alone."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout, SegmentationResults
from spoco_blocks.engine.manifest import Manifest, write_atomically
from spoco_blocks.errors import LedgerError, SettingsError
from spoco_blocks.settings.fingerprint import fingerprint
from spoco_blocks.settings.jobs import StitchJob, digest
from spoco_blocks.settings.reading import explain
from spoco_blocks.settings.sections import TruthSettings
from spoco_blocks.settings.segmentation import StitchingSettings
from spoco_blocks.stages.evaluate import Compared, compare
from spoco_blocks.stages.stitch.decision import distances
from spoco_blocks.stages.stitch.holes import load_pieces
from spoco_blocks.stages.stitch.run import Clustered, write_decision
from spoco_blocks.stages.stitch.seams import count_cuts, rates

VERSION = 1
# Times the merge distance that follows from the model.
MERGE_FACTORS = (0.4, 0.6, 0.8, 1.0, 1.2, 1.6)
OVERLAPS = (0.1, 0.3, 0.5, 0.7, 0.9)
SCORES = ("sbd", "ap50", "map", "voi_split", "voi_merge", "are")


@dataclass(frozen=True)
class Sweep:
    """What to decide again.

    Attributes
    ----------
    thresholds : tuple of float
        Values of `merge_distance`, or of `min_overlap` where fragments are final objects; none = a few around the
        default.
    changed : mapping of str to str
        Other keys of `stitching`, as they are written in a configuration.
    score : bool
        Whether to compare with the truth of the last evaluation; reads fragments and truth once.
    write : bool
        Whether to keep the decision; there must be one.
    """

    thresholds: tuple[float, ...] = ()
    changed: Mapping[str, str] | None = None
    score: bool = False
    write: bool = False


def restitch(layout: Layout, segmentation: str, sweep: Sweep, execution: Execution) -> list[dict[str, float | None]]:
    """Decide with other thresholds; read no voxels, unless to score.

    Returns
    -------
    list of dict
        One row per threshold: threshold, segments, voxels of the median and the largest, parts of their sections that
        are cut at seams and at planes inside blocks, and scores. They are also written to `restitch.csv`.

    Raises
    ------
    SettingsError
        When a threshold or key cannot be meant, there is no truth to score against, or several decisions are to be
        kept.
    LedgerError
        When clustering is not complete.
    """
    clustered = Clustered.open(layout, segmentation, "restitch")
    choices = chosen_settings(clustered, sweep)
    if sweep.write and len(choices) != 1:
        raise SettingsError(
            f"--write keeps one decision; got {len(choices)} thresholds. Name the one to keep with --threshold."
        )
    compared = compare_fragments(clustered, execution) if sweep.score else None
    fragments, edges = clustered.load()
    pieces = load_pieces(clustered.records, fragments, gaps=clustered.gaps)
    planes = clustered.planes(pieces)
    rows: list[dict[str, float | None]] = []
    for threshold, settings in choices:
        lookup = clustered.lookup(fragments, edges, pieces, settings).lookup
        at_seams, inside = rates(planes, count_cuts(planes, lookup, clustered.tables / "seams"))
        cut = {"cut_at_seams": at_seams, "cut_inside": inside}
        rows.append({"threshold": threshold, **sizes(lookup, pieces.voxels), **cut})
        if compared is not None:
            rows[-1] |= scores_of(compared, lookup, pieces.offsets)
    write_atomically(clustered.results.curve, as_csv(rows))
    if sweep.write:
        job = StitchJob(segmentation=segmentation, stitching=choices[0][1])
        write_decision(job, clustered, fragments, edges)
    shutil.rmtree(clustered.tables)
    return rows


def chosen_settings(clustered: Clustered, sweep: Sweep) -> list[tuple[float, StitchingSettings]]:
    """Give every threshold and the settings with it: those of the last decision, but for what is changed."""
    swept = "min_overlap" if clustered.final else "merge_distance"
    usual, _ = distances(StitchingSettings(), clustered.plan.object_distance)
    around = OVERLAPS if clustered.final else tuple(round(usual * factor, 3) for factor in MERGE_FACTORS)
    thresholds = sweep.thresholds or around
    last = last_settings(clustered.results).model_dump() | dict(sweep.changed or {})
    try:
        found = [(value, StitchingSettings.model_validate(last | {swept: value})) for value in thresholds]
    except ValidationError as error:
        raise SettingsError(explain(error, StitchingSettings)) from None
    clustered.check(found[0][1])
    return found


def last_settings(results: SegmentationResults) -> StitchingSettings:
    """Give the settings of the last decision; the defaults where there was none."""
    try:
        found = Manifest.read(results.manifest("stitch")).result["job"]["stitching"]
    except LedgerError:
        return StitchingSettings()
    return StitchingSettings.model_validate(found)


def sizes(lookup: NDArray[Any], voxels: NDArray[np.int64]) -> dict[str, float]:
    """Count segments, and give the sizes of the median and the largest."""
    found = np.bincount(lookup, voxels)[1:]
    return {
        "segments": len(found),
        "median_voxels": float(np.median(found)) if len(found) else 0.0,
        "largest_voxels": float(found.max(initial=0)),
    }


def compare_fragments(clustered: Clustered, execution: Execution) -> Compared:
    """Count how truth and pieces overlap, once; every decision is scored by these tables.

    Raises
    ------
    SettingsError
        When the segmentation was not evaluated against a truth.
    """
    results = clustered.results
    path = results.manifest("evaluate")
    truth = Manifest.read(path).result["job"]["truth"] if path.exists() else None
    if truth is None:
        raise SettingsError(
            f"--score compares with the truth of the last evaluation, and {path} names none; configure "
            "volumes.NAME.truth and run the workflow, or leave --score out."
        )
    settings = TruthSettings.model_validate(truth)
    ignore = None if settings.ignore is None else settings.ignore.uri
    identity = digest("restitch", VERSION, clustered.digest, truth, fingerprint(settings.uri, ignore))
    folder, gaps = results.ledger("restitch"), clustered.gaps
    return compare(settings, results.fragments, clustered.plan, folder, identity, execution, gaps=gaps)


def scores_of(compared: Compared, lookup: NDArray[Any], offsets: NDArray[np.int64]) -> dict[str, float]:
    """Score a decision: replace pieces by segments in the tables; means over images where they are independent."""
    tables = []
    for block, (pairs, counts) in zip(compared.numbers, compared.tables, strict=True):
        local = pairs[:, 1].astype(np.int64)
        segments = np.where(local > 0, lookup[np.where(local > 0, local + offsets[block], 0)], 0).astype(np.uint64)
        tables.append((np.stack([pairs[:, 0], segments], axis=1), counts))
    found = compared.scores(tables)
    found |= found.get("per_image", {})
    return {name: float(found[name]) for name in SCORES}


def changes(texts: Sequence[str]) -> dict[str, Any]:
    """Read KEY=VALUE; null is what follows from the model.

    Raises
    ------
    SettingsError
        When there is no `=`.
    """
    for text in texts:
        if "=" not in text:
            raise SettingsError(f"expected KEY=VALUE, for instance small_voxels=50; got {text!r}.")
    return {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in texts)}


def as_csv(rows: Sequence[Mapping[str, float | None]]) -> str:
    """Write rows as CSV with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def in_words(rows: Sequence[Mapping[str, float | None]]) -> str:
    """Write rows as a table for the terminal."""
    table = [list(rows[0]), *(["n/a" if value is None else f"{value:.6g}" for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table
    )
