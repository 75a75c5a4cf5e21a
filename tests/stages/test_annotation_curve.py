"""The annotation curve: from labels to the page, and what the page shows of given scores."""

from __future__ import annotations

import csv
import json
import re

import pytest
from phantoms import ball_configuration
from pipeline import SERIAL, segment_and_score

from spoco_blocks.cli import main
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.settings import annotation_jobs, jobs, parse_settings
from spoco_blocks.settings.annotation_curve import curve_runs, curve_settings
from spoco_blocks.stages.labels import run_labels
from spoco_blocks.stages.report.annotation_page import Trained, annotation_page, summarise
from spoco_blocks.stages.report.score_chart import Point, Series, score_chart
from spoco_blocks.stages.train import run_train

GIVEN = [
    Trained("full", 1.0, 0, 20, {"ap50": 0.9, "sbd": 0.8}),
    Trained("full", 0.1, 0, 2, {"ap50": 0.5, "sbd": 0.6}),
    Trained("full", 0.1, 1, 2, {"ap50": 0.7, "sbd": 0.6}),
    Trained("pull-push", 0.1, 0, 2, {"ap50": 0.25, "sbd": 0.3}),
]


def test_mean_and_range_over_seeds():
    found = summarise(GIVEN, "ap50")
    assert found["full"] == [Point(2, pytest.approx(0.6), 0.5, 0.7), Point(20, 0.9, 0.9, 0.9)]
    assert found["pull-push"] == [Point(2, 0.25, 0.25, 0.25)]


def test_higher_scores_and_more_objects_lie_higher_and_farther_right():
    points = [Point(1, 0.2, 0.1, 0.3), Point(10, 0.6, 0.5, 0.7), Point(100, 1.0, 1.0, 1.0)]
    chart = score_chart("AP50", [Series("ours <&>", "full", points)], baseline=0.6)
    dots = [tuple(map(float, dot)) for dot in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', chart)]
    assert [x for x, _ in dots] == sorted(x for x, _ in dots)
    assert dots[1][0] - dots[0][0] == pytest.approx(dots[2][0] - dots[1][0], abs=0.2)
    assert dots[0][1] - dots[1][1] == pytest.approx(dots[1][1] - dots[2][1], abs=0.2)
    (line,) = re.findall(r'class="baseline"[^>]* y1="([\d.]+)"', chart)
    assert float(line) == dots[1][1]
    assert "ours &lt;&amp;&gt;, 10 objects: 0.600 (0.500 to 0.700)" in chart
    one = score_chart("AP50", [Series("ours", "full", points[:1])], baseline=0.0)
    assert "nan" not in one


def test_the_page_stands_alone_and_shows_every_figure():
    page = annotation_page("nuclei", GIVEN, {"ap50": 0.4321, "sbd": 0.55})
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert page.count('class="chart"') == 2
    for text in (
        "nuclei",
        "0.600 (0.500 to 0.700)",
        "0.250 (0.250 to 0.250)",
        "0.432",
        "2 seeds",
        "Pull and push only",
    ):
        assert text in page


def test_a_small_curve_from_labels_to_page(tmp_path):
    tree = ball_configuration(tmp_path, iterations=4)
    tree["annotation_curve"] = {"fractions": [0.1, 1.0], "seeds": [0]}
    configured = parse_settings(tree)
    settings, runs, layout = curve_settings(configured), curve_runs(configured), Layout(tmp_path / "results")
    for volume in {"balls", *(volume for run in runs for volume in run.volumes)}:
        run_labels(jobs.labels_job(settings, volume), layout.volume(volume), SERIAL)
    for run in runs:
        run_train(jobs.train_job(settings, run.model), layout, threads=1)
        segment_and_score(settings, run.segmentation, layout)
    where = ["--results", str(layout.root)]
    assert (
        main(["annotation_baseline", jobs.canonical(annotation_jobs.annotation_baseline_job(configured)), *where]) == 0
    )
    assert main(["annotation_curve", jobs.canonical(annotation_jobs.annotation_curve_job(configured)), *where]) == 0

    results = layout.annotation_curve
    baseline = Manifest.read(results.baseline).result
    assert baseline["tuned"]["ap50"] > 0.9
    assert baseline["scores"]["ap50"] > 0.9
    assert baseline["scores"]["n_truth"] == 24
    rows = list(csv.DictReader(results.table.open()))
    assert [(row["variant"], float(row["fraction"])) for row in rows] == [(run.variant, run.fraction) for run in runs]
    counts = {float(row["fraction"]): int(row["annotated"]) for row in rows}
    assert 1 <= counts[0.1] < counts[1.0] <= 24
    for run, row in zip(runs, rows, strict=True):
        scores = json.loads(layout.segmentation(run.segmentation).scores.read_text())
        assert float(row["ap50"]) == scores["ap50"]
    assert f"{baseline['scores']['ap50']:.3f}" in results.page.read_text()
    assert len(Manifest.read(results.manifest).result["runs"]) == 4


def test_a_region_that_does_not_fit_is_refused(tmp_path, monkeypatch, capsys):
    from spoco_blocks.stages import annotation_baseline

    configured, layout = parse_settings(ball_configuration(tmp_path)), Layout(tmp_path / "results")
    run_labels(jobs.labels_job(configured, "balls"), layout.volume("balls"), SERIAL)
    monkeypatch.setattr(annotation_baseline, "SCORED_VOXELS", 1000)
    monkeypatch.setattr(annotation_baseline, "TUNED_VOXELS", 20**3)
    job = jobs.canonical(annotation_jobs.annotation_baseline_job(configured))
    assert main(["annotation_baseline", job, "--results", str(layout.root)]) == 1
    assert "Make truth.region smaller" in capsys.readouterr().err
