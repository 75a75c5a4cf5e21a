from __future__ import annotations

import json
import shutil

import pytest
from phantoms import ball_configuration

from bench import learning, workflow
from bench.frame import Report
from spoco_blocks.errors import SettingsError
from spoco_blocks.settings import parse_settings

SCORES = {"ap50": 0.5, "sbd": 0.6, "voi_split": 0.2, "voi_merge": 0.3, "f1_50": 0.7}


@pytest.fixture
def runs(tmp_path):
    return workflow.Runs(tmp_path / "runs", {})


@pytest.fixture
def faked(monkeypatch):
    """The workflow, with scores that follow from the configuration."""
    calls = []

    def run(folder, tree, *targets, data):
        calls.append(tree)
        parse_settings(tree)
        (model,) = tree["models"].values()
        loss = model["training"].get("loss", {})
        scores = SCORES | {"ap50": 0.9 - 0.1 * (loss.get("dice") == 0.0) - 0.01 * model["training"].get("seed", 0)}
        path = folder / targets[0]
        path.parent.mkdir(parents=True)
        chain = {"result": {"scores": SCORES | {"ap50": 0.8}}}
        path.write_text(json.dumps(chain if path.stem == "annotation_baseline" else scores))
        return folder / "results"

    monkeypatch.setattr(workflow, "run_workflow", run)
    return calls


def test_what_was_run_is_not_run_again(runs, faked, tmp_path, monkeypatch):
    tree = learning.configuration("nuclei")
    first = runs.result("a", tree, "scores.json")
    assert runs.result("b", tree, "scores.json") == first
    assert len(faked) == 1
    runs.result("c", learning.changed(tree, {}, 1), "scores.json")
    assert len(faked) == 2
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["runs.json"]
    monkeypatch.setattr(workflow, "code", lambda: "of another day")
    runs.result("a", tree, "scores.json")
    assert len(faked) == 3
    with pytest.raises(SettingsError):
        runs.result("d", learning.changed(tree, {"model.training.loss.magic": 1}, 0), "scores.json")


def test_changes_reach_every_model_and_its_labels():
    tree = learning.configuration("neurites")
    result = learning.changed(tree, {"labels.shell_voxels": 3, "model.training.loss.push": 0.0}, 7)
    assert (
        result["volumes"]["neurites_train"]["labels"] | {"shell_voxels": 3, "seed": 7}
        == (result["volumes"]["neurites_train"]["labels"])
    )
    assert "labels" not in result["volumes"]["neurites_test"]
    training = result["models"]["neurites"]["training"]
    assert (training["seed"], training["loss"]) == (7, {"push_radius": 200, "push": 0.0})
    assert tree == learning.configuration("neurites")


@pytest.mark.parametrize("name", sorted(learning.PUSH_RADIUS))
def test_variants_are_settings_or_left_out(runs, faked, monkeypatch, name):
    monkeypatch.setattr(learning, "VARIANTS", learning.VARIANTS | {"magic": {"model.magic": 1}})
    report = Report()
    learning.ablation(report, runs, name)
    assert any("magic is left out" in note and "unknown key 'magic'" in note for note in report.notes)
    for tree in faked:
        parse_settings(tree)
    gained = {claim.text: claim for claim in report.claims}
    assert gained[f"{name}: AP50 gained without Dice"].figure == pytest.approx(-0.1)
    row = next(row for row in report.rows if row.subject == f"{name}, without Dice")
    assert (row.figure, row.ours, row.peer) == ("ap50 (0.780 to 0.800)", pytest.approx(0.79), pytest.approx(0.89))


def test_every_configuration_is_compared_with_the_chain(runs, faked):
    for name in learning.CONFIGURATIONS:
        report = Report()
        learning.against_the_chain(report, runs, name)
        ahead, voi, *others = report.claims
        assert ahead.figure == pytest.approx(0.09)
        assert ahead.holds is (name != "neurites")
        assert voi.figure == pytest.approx(0)
        assert len(others) == {"nuclei": 2, "nuclei_2d": 3}.get(name, 0)


def test_a_curve_varies_what_it_says(runs, faked):
    learning.curve(Report(), runs, "nuclei", (0.1, 0.3), (0, 1), (0.3,))
    chain, *trained = faked
    assert chain == learning.configuration("nuclei")
    seen = [
        (tree["volumes"]["demo"]["labels"]["keep_fraction"], tree["models"]["demo"]["training"]["seed"])
        for tree in trained
    ]
    assert seen == [(0.1, 0), (0.1, 1), (0.3, 0), (0.3, 1), (0.3, 0), (0.3, 1)]
    assert [tree["models"]["demo"]["pseudo_labels"].get("rounds", 0) for tree in trained] == [1] * 4 + [0] * 2


def test_the_workflow_runs_in_a_folder_of_its_own(tmp_path):
    tree = ball_configuration(tmp_path)
    indexed = "volumes/balls/labels.json"
    results = workflow.run_workflow(tmp_path / "run", tree, f"results/{indexed}", data={"more": tmp_path})
    assert (results / indexed).exists()
    assert (tmp_path / "run/more").resolve() == tmp_path.resolve()
    shutil.rmtree(tree["volumes"]["balls"]["raw"]["uri"])
    with pytest.raises(RuntimeError, match="VolumeNotFoundError"):
        workflow.run_workflow(tmp_path / "other", tree, f"results/{indexed}")
