"""Embeddings kept as float16 or int8, or streamed into clustering: disk, time and agreement, on the demo's data."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from bench.frame import Claim, Report, Row
from bench.workflow import ROOT, run_workflow
from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout, SegmentationResults
from spoco_blocks.grid import Box
from spoco_blocks.settings import jobs, parse_settings
from spoco_blocks.stages.calibrate import run_calibrate
from spoco_blocks.stages.cluster import run_cluster
from spoco_blocks.stages.embed import run_embed
from spoco_blocks.stages.estimate import disk_used
from spoco_blocks.stages.plan.run import run_plan
from spoco_blocks.stages.relabel import run_relabel
from spoco_blocks.stages.stitch import run_stitch
from spoco_blocks.volumes import open_volume

WAYS: dict[str, dict[str, str]] = {
    "float16": {},
    "int8": {"embedding_type": "int8"},
    "streamed": {"embeddings": "stream"},
}
KINDS = ("modes", "mutex")
EXECUTION = Execution("dask", 2)


@dataclass(frozen=True)
class Segmented:
    """One run: seconds from embeddings to segments, bytes of all its stores, and the segments."""

    seconds: float
    stored: int
    segments: NDArray[Any]


def configuration(kind: str) -> dict[str, Any]:
    """Give the demo without a round of pseudo-labels, segmented by one kind of clustering in each way."""
    tree: dict[str, Any] = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    del tree["models"]["demo"]["pseudo_labels"]
    demo = tree["segmentations"]["demo"] | {"clustering": {"kind": kind}}
    tree["segmentations"] = {f"{kind}-{way}": demo | changes for way, changes in WAYS.items()}
    return tree


def segment(tree: Mapping[str, Any], name: str, layout: Layout) -> SegmentationResults:
    """Run the stages from plan to relabel in this process, blocks in two others."""
    settings = parse_settings(tree)
    job = {stage: jobs.segmentation_job(settings, stage, name) for stage in ("plan", "embed", "cluster", "stitch")}
    run_plan(job["plan"], layout)  # type: ignore[arg-type]
    if settings.segmentations[name].embeddings == "keep":
        run_embed(job["embed"], layout, EXECUTION, 0, 1)  # type: ignore[arg-type]
    run_calibrate(job["cluster"], layout, EXECUTION)  # type: ignore[arg-type]
    run_cluster(job["cluster"], layout, EXECUTION, 0, 1)  # type: ignore[arg-type]
    run_stitch(job["stitch"], layout)  # type: ignore[arg-type]
    run_relabel(job["embed"], layout, EXECUTION, 0, 1)  # type: ignore[arg-type]
    return layout.segmentation(name)


def run_each(tree: Mapping[str, Any], folder: Path, repeats: int) -> dict[str, list[Segmented]]:
    """Segment in every way, in turn, each time in a results folder of its own."""
    found: dict[str, list[Segmented]] = {name: [] for name in tree["segmentations"]}
    for repeat in range(repeats):
        again = folder / f"repeat-{repeat}"
        again.mkdir(exist_ok=True)
        for part in ("volumes", "models"):
            if not (again / part).exists():
                (again / part).symlink_to(folder / "results" / part)
        for name, runs in found.items():
            start = time.perf_counter()
            results = segment(tree, name, Layout(again))
            seconds = time.perf_counter() - start
            volume = open_volume(results.segments)
            segments = volume.read(Box.of_shape(volume.meta.shape))
            runs.append(Segmented(seconds, sum(disk_used(results).values()), segments))
    return found


def compare(report: Report, kind: str, found: Mapping[str, list[Segmented]]) -> None:
    """Hold every way against float16."""
    kept = found[f"{kind}-float16"]
    seconds = {name: statistics.median(run.seconds for run in runs) for name, runs in found.items()}
    for way in ("int8", "streamed"):
        name = f"{kind}-{way}"
        stored = found[name][0].stored
        ari = float(adjusted_rand_score(kept[0].segments.ravel(), found[name][0].segments.ravel()))
        report.rows += [
            Row(name, "stored, MB", stored / 1e6, kept[0].stored / 1e6, "float16"),
            Row(name, "seconds", seconds[name], seconds[f"{kind}-float16"], "float16"),
            Row(name, "ARI to float16", ari, 1.0, "float16"),
        ]
        least, most = {"int8": (0.99, 0.75), "streamed": (0.999, 0.1)}[way]
        report.claims += [
            Claim(f"{name}: ARI to the segmentation of float16 embeddings", ari, at_least=least),
            Claim(f"{name}: what is stored, of that with float16 embeddings", stored / kept[0].stored, at_most=most),
        ]


def run(quick: bool) -> Report:
    """Train the demo's first model once, then segment in every way."""
    report = Report(
        notes=[
            "Demo data, model of the first round; seconds are wall time from plan to relabel with two processes.",
            "Stored are embeddings, foreground, affinities, fragments and segments together, compressed.",
        ]
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run_workflow(folder, configuration(KINDS[0]), "results/models/demo/train.json")
        # Relative paths of the configuration count from where the workflow ran.
        for kind in KINDS:
            tree = configuration(kind)
            for volume in tree["volumes"].values():
                for section in volume.values():
                    section["uri"] = str(ROOT / section["uri"])
            compare(report, kind, run_each(tree, folder, 1 if quick else 3))
    assert np.isfinite([row.ours for row in report.rows]).all()
    return report
