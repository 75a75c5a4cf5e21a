"""The demo for three training seeds, beside a tuned classical chain, and cut in two different ways."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from bench.frame import Claim, Report, Row
from bench.workflow import ROOT, run_workflow
from spoco_blocks.grid import Box
from spoco_blocks.kernels.classical import LabelledPart, tune
from spoco_blocks.kernels.contingency import contingency
from spoco_blocks.kernels.scores import scores
from spoco_blocks.volumes import open_volume

IMAGE = "data/lightsheet_nuclei.zarr"
BOUNDARY = 40
ISOTROPIC = (1.0, 1.0, 1.0)
FIGURES = ("ap50", "ap75", "sbd", "voi_split", "voi_merge")
Array = NDArray[Any]


def whole(uri: str | Path, level: int = 0) -> Array:
    """Read a small volume at once."""
    volume = open_volume(uri, level=level)
    return volume.read(Box.of_shape(volume.meta.shape))


def workflow(folder: Path, name: str, **changes: Any) -> Path:
    """Run the demo's configuration with changes; give the folder of its segmentation."""
    tree = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    tree["models"]["demo"] = changes.get("model", tree["models"]["demo"])
    tree["models"]["demo"].setdefault("training", {})["seed"] = changes.get("seed", 0)
    if "checkpoint" in tree["models"]["demo"]:
        del tree["models"]["demo"]["training"]
    tree["segmentations"]["demo"]["blocks"] = changes.get("blocks", tree["segmentations"]["demo"]["blocks"])
    return run_workflow(folder / name, tree, "all") / "segmentations/demo"


def tuned_classical(raw: Array, truth: Array) -> dict[str, float]:
    """Tune the chain on the training half, with all its labels; score the other half."""
    left, right = np.s_[:, :, :BOUNDARY], np.s_[:, :, BOUNDARY:]
    chain, _ = tune([LabelledPart(raw[left], truth[left])], ISOTROPIC)
    return asdict(scores(*contingency(truth[right], chain(raw[right], ISOTROPIC))))


def run(quick: bool) -> Report:
    """Train and score; in full three seeds and two block shapes."""
    raw, truth = whole(IMAGE, 1).astype(float), whole(f"{IMAGE}/labels/nuclei", 1)
    report = Report(
        notes=["Scored on the half of the volume that training never sees; the chain was tuned on the other."]
    )
    chain = tuned_classical(raw, truth)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        found = []
        for seed in range(1 if quick else 3):
            results = workflow(folder, f"seed{seed}", seed=seed)
            found.append(json.loads((results / "scores.json").read_text()))
            report.rows += [
                Row(f"seed {seed}", name, found[-1][name], chain[name], "tuned classical chain") for name in FIGURES
            ]
            for name in ("ap50", "sbd"):
                report.claims.append(Claim(f"seed {seed}: {name}", found[-1][name], at_least=0.70))
        mean = float(np.mean([scored["ap50"] for scored in found]))
        report.claims.append(Claim("mean ap50", mean, at_least=0.75))
        first = whole(folder / "seed0/results/segmentations/demo/segmentation.zarr")
        model = {"checkpoint": str(folder / "seed0/results/models/demo/checkpoint.pt")}
        for shape in ([80, 80, 80],) if quick else ([80, 80, 80], [24, 32, 28]):
            blocks = {"shape_voxels": shape}
            other = whole(workflow(folder, f"blocks{shape[0]}", model=dict(model), blocks=blocks) / "segmentation.zarr")
            index = float(adjusted_rand_score(first.ravel(), other.ravel()))
            report.claims.append(Claim(f"ARI of blocks of 40³ and {shape}", index, at_least=0.99))
    return report
