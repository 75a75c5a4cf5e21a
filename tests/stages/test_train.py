"""Stage `train`: it continues wherever it was stopped, keeps the best network, and says what went wrong."""

from __future__ import annotations

import copy
import csv
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from phantoms import ball_configuration
from runs import PATCH, PLAN, loader, open_balls, training, write_balls

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout, ModelResults
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.errors import HandOverError, TrainingError
from spoco_blocks.learn.checkpoint import load_checkpoint, weights_digest
from spoco_blocks.learn.resume import load_state
from spoco_blocks.learn.validation import Validation
from spoco_blocks.settings import jobs, parse_settings
from spoco_blocks.stages.labels import run_labels
from spoco_blocks.stages.train import run_train
from spoco_blocks.stages.train_loop import TrainingRun

ITERATIONS = 60


class Balls:
    """A volume of balls that models can be trained on, each under a name of its own."""

    def __init__(self, folder: Path) -> None:
        self.layout, self.tree = Layout(folder / "results"), ball_configuration(folder)
        # All balls of the region are annotated, so that some are spared for validation.
        self.tree["volumes"]["balls"]["labels"] |= {"keep_fraction": 1.0, "validation_fraction": 0.4}
        self.tree["models"]["balls"]["network"] = {"width": 4, "levels": 2, "embedding_channels": 4}
        run_labels(self.job("any").volumes[0], self.layout.volume("balls"), Execution("serial"))

    def job(self, name: str, **training) -> jobs.TrainJob:
        tree = copy.deepcopy(self.tree)
        model = tree["models"].pop("balls")
        chosen = {"iterations": ITERATIONS, "patch_voxels": [16, 16, 16], "validate_every": 20, **training}
        tree["models"][name] = model | {"training": model["training"] | chosen}
        tree["segmentations"] = {}
        return jobs.train_job(parse_settings(tree), name)

    def train(self, name: str, **training) -> Manifest:
        return run_train(self.job(name, **training), self.layout, threads=1)

    def start(self, environment, name: str, **training) -> subprocess.Popen[str]:
        command = [
            sys.executable, "-m", "spoco_blocks.cli", "train", jobs.canonical(self.job(name, **training)),
            "--results", str(self.layout.root), "--workers", "1",
        ]  # fmt: skip
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    torch.set_num_threads(1)
    return Balls(tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="module")
def whole(work):
    """A run that is never stopped."""
    return work.train("whole")


@pytest.fixture(scope="module")
def environment(program_environment):
    return program_environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}


def iterations(results: ModelResults) -> list[int]:
    with results.curves.open() as file:
        return [int(row["iteration"]) for row in csv.DictReader(file)]


def wait_for(condition, process) -> None:
    deadline = time.monotonic() + 300
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def changed(path: Path, before: int) -> bool:
    return path.exists() and path.stat().st_mtime_ns != before


def test_killed_at_any_moment_it_ends_with_the_same_network(work, whole, environment):
    results, seen = work.layout.model("killed"), 0
    chance = random.Random(0)
    for _ in range(3):
        process = work.start(environment, "killed", save_every_minutes=1e-4)
        wait_for(partial(changed, results.state, results.state.exists() and results.state.stat().st_mtime_ns), process)
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not results.manifest.exists()
        done = torch.load(results.state, weights_only=True)["state"]["training"]["iteration"]
        assert seen < done < ITERATIONS
        assert len(iterations(results)) >= done
        seen = done
    manifest = work.train("killed")
    expected = work.layout.model("whole")
    assert weights(results) == weights(expected)
    assert iterations(results) == list(range(1, ITERATIONS + 1))
    assert losses(results) == losses(expected)
    assert manifest.result["kept"] == whole.result["kept"]


def weights(results: ModelResults) -> tuple[str, int]:
    checkpoint = load_checkpoint(results.checkpoint)
    return weights_digest(checkpoint), checkpoint.iterations


def losses(results: ModelResults) -> list[dict[str, str]]:
    """Rows without what is measured in seconds."""
    with results.curves.open() as file:
        rows = list(csv.DictReader(file))
    return [{key: row[key] for key in row if key not in ("iterations_per_second", "waiting")} for row in rows]


def test_told_to_stop_it_saves_its_state_and_says_so(work, whole, environment):
    results = work.layout.model("stopped")
    process = work.start(environment, "stopped", save_every_minutes=1e-4)
    wait_for(results.state.exists, process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "TrainingStoppedError: training was told to stop after iteration" in said
    assert "Start it again to continue" in said
    done = iterations(results)
    assert 0 < len(done) < ITERATIONS
    assert not results.manifest.exists()
    work.train("stopped")
    assert iterations(results) == list(range(1, ITERATIONS + 1))
    assert weights(results) == weights(work.layout.model("whole"))


def test_a_finished_run_is_not_repeated_but_another_job_is(work, whole):
    before = work.layout.model("whole").curves.read_text()
    again = work.train("whole", workers=0, save_every_minutes=9.0)
    assert again.digest == whole.digest
    assert work.layout.model("whole").curves.read_text() == before
    other = work.train("again", iterations=4)
    assert work.train("again", iterations=4, learning_rate=0.01).digest != other.digest
    assert iterations(work.layout.model("again")) == [1, 2, 3, 4]


def test_the_network_that_validated_best_is_kept(work, whole):
    results, kept = work.layout.model("whole"), whole.result["kept"]
    with results.curves.open() as file:
        rows = list(csv.DictReader(file))
    scored = {int(row["iteration"]): float(row["validation_mean_iou"]) for row in rows if row["validation_mean_iou"]}
    assert list(scored) == [20, 40, 60]
    assert kept["by"] == "validation_mean_iou"
    assert kept["annotated_objects"] >= 3
    assert kept["score"] == pytest.approx(scored[kept["iteration"]], rel=1e-5)
    assert kept["score"] >= max(scored.values()) - 0.01
    assert load_checkpoint(results.checkpoint).iterations == kept["iteration"]


def test_patience_ends_a_run_that_does_not_get_better(work):
    # At this rate nothing is learnt, so no validation is better than the first.
    manifest = work.train("patient", learning_rate=1e-9, validate_every=5, patience=2)
    stopped = manifest.result["iterations"]
    assert stopped % 5 == 1
    assert 16 <= stopped < ITERATIONS
    assert iterations(work.layout.model("patient")) == list(range(1, stopped + 1))
    assert work.train("patient", learning_rate=1e-9, validate_every=5, patience=2).digest == manifest.digest
    assert iterations(work.layout.model("patient")) == list(range(1, stopped + 1))


def test_what_it_cost_is_in_the_manifest(whole):
    result = whole.result
    assert result["iterations_per_second"] > 0
    assert 0 <= result["waiting_fraction"] < 1
    assert result["peak_mb"]["memory"] > 100
    assert (result["lost_steps"], result["processes"], result["precision"]) == (0, 1, "float32")


def test_a_chosen_precision_is_not_chosen_again(work, monkeypatch):
    job = work.job("precise", iterations=4, precision="auto")
    gradients = [torch.ones(2)]
    slow, step = "float32", "spoco_blocks.learn.precision._step"
    monkeypatch.setattr(step, lambda network, x, name, layout: (float(name == slow), gradients))
    assert run_train(job, work.layout, 1).result["precision"] == "bfloat16"
    slow = "bfloat16"
    assert run_train(job, work.layout, 1).result["precision"] == "bfloat16"


@pytest.mark.parametrize(
    ("bias", "says"), [(20.0, "nearly every voxel for foreground"), (-20.0, "hardly any voxel for foreground")]
)
def test_a_collapsed_foreground_raises_the_alarm_once(tmp_path, caplog, bias, says):
    write_balls(tmp_path)
    run = TrainingRun(
        training(10, learning_rate=1e-9, validate_every=2),
        loader(tmp_path),
        Validation(open_balls(tmp_path), PATCH, (2, 2, 2), 2, 1),
        ModelResults(tmp_path / "model"),
        "job",
    )
    for network in (run.training.f, run.training.g):
        network.head.bias.data[PLAN.embedding_channels] = bias
    run.run()
    (warning,) = run.warnings()
    assert says in warning
    assert [record.levelname for record in caplog.records if says in record.message] == ["WARNING"]
    other = TrainingRun(training(10), loader(tmp_path), run.validation, run.results, "job")
    other.restore(load_state(run.results.state, "job"))
    assert other.warnings() == [warning]


def test_a_lowered_learning_rate_is_said(tmp_path):
    run = TrainingRun(training(), loader(tmp_path), None, ModelResults(tmp_path), "job")
    assert run.warnings() == []
    run.training.guard.recoveries, run.training.guard.lost = 2, 11
    (warning,) = run.warnings()
    assert "0.25 times its setting, because 11 steps" in warning


def test_two_processes_train_one_model(work, environment):
    job = work.job("both", iterations=12, validate_every=6, gpus=2)
    with pytest.raises(TrainingError, match=r"training\.gpus is 2, but 1 process"):
        run_train(job, work.layout, 1)
    command = [
        "torchrun", "--standalone", "--nproc-per-node", "2", "-m", "spoco_blocks.cli", "train", jobs.canonical(job),
        "--results", str(work.layout.root), "--workers", "2",
    ]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = work.layout.model("both")
    assert Manifest.read(results.manifest).result["processes"] == 2
    assert iterations(results) == list(range(1, 13))
    kept = Manifest.read(results.manifest).result["kept"]["iteration"]
    assert load_checkpoint(results.checkpoint).iterations == kept
    state = torch.load(results.state, weights_only=True)
    assert load_state(results.state, state["identity"])["finished"] is False


def test_before_its_job_ends_it_saves_its_state_and_continues_to_the_same_weights(work, whole):
    job, results = work.job("handed"), work.layout.model("handed")
    with pytest.raises(HandOverError, match=f"after iteration 1 of {ITERATIONS}, as the time of its job"):
        run_train(job, work.layout, 1, deadline=time.time() + 1)
    run_train(job, work.layout, 1)
    assert weights(results) == weights(work.layout.model("whole"))
