"""`snakemake annotation_curve`: what it would run."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from phantoms import ball_configuration, write_configuration

DEMO = Path(__file__).parents[2] / "config/config.yaml"


def counted(output: str) -> dict[str, int]:
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)}


def test_the_demo_trains_every_fraction_seed_and_variant(snakemake, tmp_path):
    tree = yaml.safe_load(DEMO.read_text())
    found = counted(snakemake(write_configuration(tmp_path, tree), "--dry-run", "annotation_curve").stdout)
    runs, rounds = 5 * 3 * 2, 5 * 3  # pull and push alone trains once, the full method a second time on pseudo-labels
    # The user's own volume is indexed for the baseline, each choice of objects for both of its trainings.
    assert found.pop("labels") == 1 + 5 * 3
    once = ("fetch", "annotation_baseline", "annotation_curve")
    assert [found.pop(rule) for rule in once] == [1] * 3
    assert (found.pop("train"), found.pop("agree"), found.pop("evaluate")) == (runs + rounds, rounds, runs)
    each = ("plan", "embed", "calibrate", "cluster", "stitch", "relabel")
    assert [found.pop(rule) for rule in each] == [runs + 2 * rounds] * len(each)
    assert list(found) == ["total"]
    ordinary = counted(snakemake(write_configuration(tmp_path, tree), "--dry-run").stdout)
    assert (ordinary["train"], ordinary["labels"], ordinary["report"]) == (2, 1, 1)
    assert "annotation_curve" not in ordinary


def test_a_configuration_without_truth_says_what_a_curve_needs(snakemake, tmp_path):
    tree = ball_configuration(tmp_path)
    del tree["volumes"]["balls"]["truth"]
    config = write_configuration(tmp_path, tree)
    assert counted(snakemake(config, "--dry-run").stdout)["train"] == 1
    result = snakemake(config, "--dry-run", "annotation_curve", check=False)
    assert result.returncode != 0
    assert "add `truth`" in result.stdout + result.stderr
