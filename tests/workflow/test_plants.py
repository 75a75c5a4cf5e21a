"""The example for CVPPP, run on a small folder of that layout: one command from images to printed scores."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from image_folders import write_cvppp
from phantoms import write_configuration

EXAMPLE = Path(__file__).parents[2] / "config/examples/cvppp.yaml"


def test_one_command_trains_segments_and_prints_the_scores(snakemake, tmp_path):
    write_cvppp(tmp_path / "plants/A1", [(64, 80), (56, 72)] * 3)
    tree = yaml.safe_load(EXAMPLE.read_text().replace("?downscale=2", ""))
    leaves, model = tree["volumes"]["leaves"], tree["models"]["leaves"]
    leaves["labels"] |= {"images": {"step": 2}, "keep_fraction": 0.5, "keep_per": "image", "background_fraction": 0.5}
    leaves["truth"]["images"] = {"start": 1, "step": 2}
    model["network"] = {"width": 8, "levels": 2, "embedding_channels": 4}
    model["training"] = {
        "iterations": 120,
        "patch_voxels": [1, 48, 48],
        "batch": 2,
        "learning_rate": 0.01,
        "precision": "float32",
    }
    tree["execution"] = {"executor": "serial"}
    result = snakemake(write_configuration(tmp_path, tree), "--config", f"folder={tmp_path / 'plants'}")

    results = tmp_path / "results/segmentations/leaves"
    scores = json.loads((results / "scores.json").read_text())
    means = scores["per_image"]
    assert means["images"] == 3
    assert scores["n_truth"] == 15
    assert means["ap50"] > 0.8
    assert means["sbd"] > 0.8
    assert f"mean of 3 images: SBD {means['sbd']:.3f}, |DiC|" in result.stdout
    page = re.sub(r"<[^>]*>", " ", (results / "report.html").read_text())
    assert re.search(rf"SBD per image\s+higher is better\s+{means['sbd']:.3f}", page)
