"""Rounds of pseudo-labels in the workflow: which jobs there are, what they make, and what is run again."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from phantoms import ball_configuration, write_configuration

from spoco_blocks.engine.manifest import Manifest

ROOT = Path(__file__).parents[2]
TRAINED = "results/models/balls/train.json"
SEGMENTED = ("plan", "embed", "calibrate", "cluster", "stitch", "relabel")


def jobs_to_run(output: str) -> Counter[str]:
    return Counter(re.findall(r"^(?:local)?rule (\w+):", output, re.MULTILINE)) - Counter(["all"])


def test_jobs_of_the_demo(snakemake, tmp_path):
    tree = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    tree["models"]["demo"]["pseudo_labels"] = {"rounds": 2}
    planned = snakemake(write_configuration(tmp_path, tree), "--dry-run").stdout
    once = dict.fromkeys(("fetch", "labels", "estimate", "recut", "pyramid", "evaluate", "report"), 1)
    assert jobs_to_run(planned) == Counter(once | dict.fromkeys(SEGMENTED, 5) | {"train": 3, "agree": 2})
    reports = re.findall(r"output: (\S+report\.html)", planned)
    assert reports == ["results/segmentations/demo/report.html"]


@pytest.fixture
def configured(tmp_path):
    tree = ball_configuration(tmp_path, iterations=60, shards=1)
    tree["execution"]["executor"] = "serial"
    tree["models"]["balls"]["pseudo_labels"] = {"rounds": 1, "agreement": 0.6}
    return tree


def test_a_round_from_labels_to_the_second_model(snakemake, configured, tmp_path):
    config = write_configuration(tmp_path, configured)
    snakemake(config, "--", TRAINED)
    first, agreed, second = (
        Manifest.read(tmp_path / "results/models" / name)
        for name in ("balls--round0/train.json", "balls--round0/pseudo/balls/agree.json", "balls/train.json")
    )
    assert agreed.result["kept"] > 0
    assert second.inputs["agree/balls"] == agreed.digest
    assert second.result["pseudo_objects"] == {"balls": agreed.result["kept"]}
    assert first.result["pseudo_objects"] == {}
    assert second.digest != first.digest
    assert "Nothing to be done" in snakemake(config, "--", TRAINED).stderr

    configured["models"]["balls"]["pseudo_labels"]["agreement"] = 0.7
    config = write_configuration(tmp_path, configured)
    assert jobs_to_run(snakemake(config, "--dry-run", TRAINED).stdout) == Counter(("agree", "train"))
    again = jobs_to_run(snakemake(config, "--dry-run").stdout)
    assert again == Counter([*SEGMENTED, "agree", "train", "estimate", "recut", "pyramid", "evaluate", "report"])
    configured["models"]["balls"]["pseudo_labels"] = {"rounds": 1, "agreement": 0.6, "shell": False}
    config = write_configuration(tmp_path, configured)
    assert jobs_to_run(snakemake(config, "--dry-run", TRAINED).stdout) == Counter(["train"])
