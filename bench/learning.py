"""What each part of the method adds on real volumes, beside pull and push alone and the tuned classical chain.

The full run takes hours without a GPU; it keeps what it has in results/bench/learning and continues there.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from bench.frame import Claim, Report, Row
from bench.workflow import ROOT, Runs, missing_files
from spoco_blocks.errors import SettingsError
from spoco_blocks.settings import parse_settings
from spoco_blocks.settings.annotation_curve import curve_segmentation

FIGURES = ("ap50", "sbd", "voi_split", "voi_merge")
SEEDS = (0, 1, 2)
# Differences of AP50 below this are noise (METHOD: one or two seeds).
NOISE = 0.05
LOSS = "model.training.loss"

# What the ablation changes: dotted keys below `model`, `labels` (of every training volume) and `segmentation`.
VARIANTS: dict[str, dict[str, Any]] = {
    "full method": {},
    "without pull": {f"{LOSS}.pull": 0.0},
    "without push": {f"{LOSS}.push": 0.0},
    "without unlabelled push": {f"{LOSS}.unlabelled_push": 0.0},
    "without Dice": {f"{LOSS}.dice": 0.0},
    "without consistency": {f"{LOSS}.consistency": 0.0},
    "without regulariser": {f"{LOSS}.regulariser": 0.0},
    "without affinities": {f"{LOSS}.affinity": 0.0},
    "without warps": {"model.training.views.warp_probability": 0.0},
    "without coordinates": {"model.training.coordinates": "none"},
    "without shell": {"labels.shell_voxels": 0},
    "without EMA": {"model.training.ema": 0.0},
    "pull and push alone": {
        **{f"{LOSS}.{term}": 0.0 for term in ("dice", "consistency", "unlabelled_push", "affinity")},
        "model.network.affinities": False,
    },
    "predicted by f": {"segmentation.weights": "f"},
    "sampled anchor": {f"{LOSS}.anchor": "sampled"},
    "pseudo-label round": {"model.pseudo_labels.rounds": 1},
}
# Nor may what a first model found help pull and push alone.
ALONE = VARIANTS["pull and push alone"] | {"model.pseudo_labels": {}}
# Local push is on for one of them and off for the other; the variant is the other way.
PUSH_RADIUS: dict[str, tuple[str, float | None]] = {
    "nuclei": ("push within 10 voxels only", 10000.0),
    "neurites": ("push between all pairs", None),
}
# The ablation compares first rounds, on neurites half as long: what changes is to be seen, not how good it gets.
ABLATED: dict[str, dict[str, Any]] = {
    "nuclei": {"model.pseudo_labels": {}},
    "neurites": {"model.pseudo_labels": {}, "model.training.iterations": 200},
}
CONFIGURATIONS = {
    "nuclei": "config/config.yaml",
    "neurites": "config/examples/neurites.yaml",
    "cells": "config/examples/cells.yaml",
    "mitochondria": "config/examples/mitochondria.yaml",
    "nuclei_2d": "config/examples/nuclei_2d.yaml",
}
FRACTIONS: dict[str, tuple[float, ...]] = {
    "nuclei": (0.1, 0.3, 1.0),
    "neurites": (0.3,),
    "cells": (0.3,),
    "mitochondria": (0.3,),
    "nuclei_2d": (0.1, 0.3, 1.0),
}
# Where a tenth of the objects is to do nearly as well as all, and by which scores: two nuclei in 3D, hundreds in 2D.
FEW_DO_AS_WELL = {"nuclei": ("ap50", "sbd"), "nuclei_2d": ("ap50", "f1_50")}


def configuration(name: str) -> dict[str, Any]:
    """Read a configuration of the repository."""
    tree: dict[str, Any] = yaml.safe_load((ROOT / CONFIGURATIONS[name]).read_text())
    return tree


def changed(tree: Mapping[str, Any], changes: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Give a configuration with dotted keys changed in every model, training volume and segmentation."""
    result = copy.deepcopy(dict(tree))
    places = {
        "model": list(result["models"].values()),
        "labels": [volume["labels"] for volume in result["volumes"].values() if volume.get("labels")],
        "segmentation": list(result["segmentations"].values()),
    }
    for path, value in (dict(changes) | {"model.training.seed": seed, "labels.seed": seed}).items():
        kind, *parents, last = path.split(".")
        for place in places[kind]:
            node = place
            for key in parents:
                node = node.setdefault(key, {})
            node[last] = copy.deepcopy(value)
    return result


def spread(values: Iterable[float]) -> tuple[float, str]:
    """Give the mean, and the range as text."""
    found = list(values)
    return statistics.fmean(found), f"{min(found):.3f} to {max(found):.3f}"


def ablation(report: Report, runs: Runs, name: str) -> None:
    """Train every variant with every seed; each is compared with the full method."""
    tree = changed(configuration(name), ABLATED[name], 0)
    (segmentation,) = tree["segmentations"]
    toggled, radius = PUSH_RADIUS[name]
    scored: dict[str, list[dict[str, Any]]] = {}
    for variant, changes in (VARIANTS | {toggled: {f"{LOSS}.push_radius": radius}}).items():
        trees = [changed(tree, changes, seed) for seed in SEEDS]
        if changes and trees[0] == changed(tree, {}, SEEDS[0]):
            report.notes.append(f"{name}: {variant} is the full method there.")
            continue
        try:
            target = f"segmentations/{segmentation}/scores.json"
            scored[variant] = [
                runs.result(f"{name}, {variant}, seed {seed}", one, target)
                for seed, one in zip(SEEDS, trees, strict=True)
            ]
        except SettingsError as error:
            report.notes.append(f"{name}: {variant} is left out; {error}")
            continue
        for figure in FIGURES:
            mean, extent = spread(scores[figure] for scores in scored[variant])
            full, _ = spread(scores[figure] for scores in scored["full method"])
            report.rows.append(Row(f"{name}, {variant}", f"{figure} ({extent})", mean, full, "full method"))
    means = {variant: spread(scores["ap50"] for scores in found)[0] for variant, found in scored.items()}
    for variant, mean in means.items():
        if variant.startswith("without"):
            gain = mean - means["full method"]
            report.claims.append(Claim(f"{name}: AP50 gained {variant}", gain, at_most=NOISE))


def curve(
    report: Report,
    runs: Runs,
    name: str,
    fractions: tuple[float, ...],
    seeds: tuple[int, ...],
    plain: tuple[float, ...],
) -> tuple[dict[tuple[str, float], list[dict[str, Any]]], dict[str, Any]]:
    """Train at fractions of the objects; rows beside the classical chain, at some also beside pull and push alone.

    Returns
    -------
    scored : dict of (variant, fraction) to list of dict
        Scores of every seed.
    chain : dict
        Scores of the classical chain.
    """
    tree = configuration(name)
    segmentation = curve_segmentation(parse_settings(tree))
    target = f"segmentations/{segmentation}/scores.json"
    chain = runs.result(f"{name}, chain", tree, "annotation_curve/annotation_baseline.json")["result"]["scores"]
    scored: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for variant, chosen in (("full", fractions), ("pull-push", plain)):
        for fraction in chosen:
            changes = {"labels.keep_fraction": fraction} | (ALONE if variant == "pull-push" else {})
            scored[variant, fraction] = [
                runs.result(f"{name}, {variant}, {fraction:g}, seed {seed}", changed(tree, changes, seed), target)
                for seed in seeds
            ]
    for fraction, figure in product(fractions, (*FIGURES, "f1_50")):
        mean, extent = spread(scores[figure] for scores in scored["full", fraction])
        subject, text = f"{name}, {fraction:.0%} of the objects", f"{figure} ({extent})"
        report.rows.append(Row(subject, text, mean, chain[figure], "tuned classical chain"))
        if fraction in plain:
            other, _ = spread(scores[figure] for scores in scored["pull-push", fraction])
            report.rows.append(Row(subject, text, mean, other, "pull and push alone"))
    return scored, chain


def mean_of(scored: list[dict[str, Any]], *figures: str) -> float:
    """Give the mean over seeds of a score, or of a sum of scores."""
    return statistics.fmean(sum(float(scores[figure]) for figure in figures) for scores in scored)


def against_the_chain(report: Report, runs: Runs, name: str) -> None:
    """Check what is claimed with 30 % of the objects, and what with 10 %."""
    plain = (0.3,) if name in ABLATED else ()
    scored, chain = curve(report, runs, name, FRACTIONS[name], SEEDS, plain)
    full = scored["full", 0.3]
    least = 0.15 if name == "neurites" else 0.0
    ahead = mean_of(full, "ap50") - chain["ap50"]
    report.claims.append(Claim(f"{name}: AP50 with 30 % of the objects less that of the chain", ahead, at_least=least))
    voi = mean_of(full, "voi_split", "voi_merge") - chain["voi_split"] - chain["voi_merge"]
    report.claims.append(Claim(f"{name}: VOI with 30 % of the objects less that of the chain", voi, at_most=0))
    for figure in FEW_DO_AS_WELL.get(name, ()):
        share = mean_of(scored["full", 0.1], figure) / mean_of(scored["full", 1.0], figure)
        report.claims.append(Claim(f"{name}: {figure} with 10 % of the objects / with all", share, at_least=0.95))
    if name == "nuclei_2d":
        found = mean_of(scored["full", 0.1], "f1_50")
        report.claims.append(Claim(f"{name}: F1 at IoU 0.5 with 10 % of the objects", found, at_least=0.95))


def quick_run() -> Report:
    """Compare on the demo's data: one seed, the demo's own share of the objects."""
    report = Report(notes=["Trained on one half of the volume with 30 % of its objects, scored on the other half."])
    with tempfile.TemporaryDirectory() as folder:
        scored, chain = curve(report, Runs(Path(folder), {}), "nuclei", (0.3,), (0,), (0.3,))
    full, plain = scored["full", 0.3], scored["pull-push", 0.3]
    for peer, other in (("the tuned classical chain", [chain]), ("pull and push alone", plain)):
        ahead = mean_of(full, "ap50") - mean_of(other, "ap50")
        report.claims.append(Claim(f"AP50 of the full method less that of {peer}", ahead, at_least=0.0))
    return report


def run(quick: bool) -> Report:
    """Compare on the demo's data, or in full on every volume that is here."""
    if quick:
        return quick_run()
    runs = Runs(ROOT / "results/bench/learning", {})
    report = Report(notes=[f"Means (and ranges) over seeds {SEEDS}; VOI in bits; a ratio below 1 is better for VOI."])
    for name in CONFIGURATIONS:
        tree = configuration(name)
        missing = missing_files(tree)
        if missing:
            report.notes.append(f"{name} is left out: {', '.join(missing)} is not here.")
            continue
        against_the_chain(report, runs, name)
        if name in ABLATED:
            ablation(report, runs, name)
    return report
