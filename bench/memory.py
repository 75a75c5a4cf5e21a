"""Peak memory of a block against what was projected, in a process of its own for each stage; a part of `engine`."""

from __future__ import annotations

import sys
import tempfile
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from bench.frame import Claim, Report, Row
from bench.peers import run_script
from bench.streaming import EXECUTION, configuration, segment
from bench.workflow import ROOT, run_workflow
from spoco_blocks.engine.layout import Layout
from spoco_blocks.grid import Box
from spoco_blocks.settings import jobs, parse_settings
from spoco_blocks.stages.labels import run_labels
from spoco_blocks.volumes import create_zarr, open_volume

REPEATS = 3


def prepare(folder: Path, edge: int, blocks: int) -> None:
    """Train the demo's first model, and segment a larger volume made of mirror images of the demo's."""
    tree = configuration("modes")
    run_workflow(folder, tree, "results/models/demo/train.json")
    raw = open_volume(str(ROOT / "data/lightsheet_nuclei.zarr"), level=1)
    voxels = raw.read(Box.of_shape(raw.meta.shape))
    padding = [(0, max(0, edge - extent)) for extent in voxels.shape]
    large = np.pad(voxels, padding, mode="symmetric")[:edge, :edge, :edge]
    stored = create_zarr(
        str(folder / "large.zarr"), shape=large.shape, dtype=large.dtype, chunk_shape=(64, 64, 64),
        voxel_size_nm=raw.meta.voxel_size_nm,
    )  # fmt: skip
    stored.write(Box.of_shape(large.shape), large)
    tree["volumes"]["large"] = {"raw": {"uri": str(folder / "large.zarr")}}
    shape = {"shape_voxels": [blocks] * 3}
    ways: dict[str, dict[str, Any]] = {
        "modes": {"clustering": {"kind": "modes"}},
        "mutex": {"clustering": {"kind": "mutex"}},
        "streamed": {"clustering": {"kind": "mutex"}, "embeddings": "stream"},
        "modes-dense": {"clustering": {"kind": "modes"}, "foreground_threshold": 0.0},
        "mutex-dense": {"clustering": {"kind": "mutex"}, "foreground_threshold": 0.0},
    }
    base = {"volume": "large", "model": "demo", "blocks": shape}
    tree["segmentations"] = {name: base | way for name, way in ways.items()}
    layout, settings = Layout(folder / "results"), parse_settings(tree)
    run_labels(jobs.labels_job(settings, "large"), layout.volume("large"), EXECUTION)
    for name in ways:
        segment(tree, name, layout)


CASES = (
    ("modes", "embed"),
    ("modes", "calibrate"),
    ("modes", "cluster"),
    ("modes", "relabel"),
    ("modes", "pyramid"),
    ("modes", "raw_pyramid"),
    ("modes", "mesh"),
    ("modes", "skeleton"),
    ("mutex", "cluster"),
    ("streamed", "cluster"),
    ("modes-dense", "cluster"),
    ("mutex-dense", "cluster"),
)


def peak_memory(report: Report, quick: bool) -> None:
    """Hold the peak of one block's process against the projection that decides how many run at once."""
    edge, blocks = (128, 64) if quick else (192, 96)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(folder, edge, blocks)
        for name, stage in CASES:
            command = [folder / "results", name, stage]
            found = [run_script(Path(sys.executable), "one_block.py", command, ROOT) for _ in range(REPEATS)]
            projected, peak = found[0]["projected"], max(run["peak"] for run in found)
            case = f"{name}: {stage}, block of {blocks}\N{SUPERSCRIPT THREE}"
            report.rows.append(Row(case, "peak memory, MiB", peak, projected, "projected"))
            report.claims.append(
                Claim(
                    f"{case}: peak of {REPEATS} processes, of what was projected",
                    peak / projected,
                    at_least=0.5,
                    at_most=1,
                )
            )
    report.notes.append(
        f"Peak memory: a volume of {prod([edge] * 3) / 1e6:.0f} Mvoxel, model of the demo; "
        f"{found[0]['idle']:.0f} MiB are the process before it has a block."
    )
