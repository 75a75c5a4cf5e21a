"""A run that is continued ends as one that was never stopped; whatever else lies there is not continued."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from runs import broken, loader, parts, same, steps, training, write_balls

from spoco_blocks.learn.resume import load_state, save_state, stop_signal
from spoco_blocks.learn.selection import NOISE, Selection


@pytest.fixture
def crops(tmp_path):
    torch.set_num_threads(1)
    write_balls(tmp_path)
    return loader(tmp_path)


@pytest.mark.parametrize("settings", [{}, {"batch": 2}, {"precision": "float16"}], ids=str)
def test_continuing_changes_nothing(tmp_path, crops, settings):
    crops.batch = settings.get("batch", 1)
    whole, first, second = (training(14, **settings) for _ in range(3))
    rows = steps(whole, crops, 14)
    before = steps(first, crops, 6)
    save_state(tmp_path / "state.pt", "job", first.state())
    with torch.no_grad():
        second.f.head.weight.zero_()
    second.load(load_state(tmp_path / "state.pt", "job"))
    assert [*before, *steps(second, crops, 14)] == rows
    assert same(whole, second)


def test_what_a_lost_step_left_behind_is_continued(tmp_path, crops):
    first, second = training(14), training(14)
    steps(first, crops, 5)
    for _ in range(3):
        first.step(broken(next(crops.batches(first.iteration, 14))))
    save_state(tmp_path / "state.pt", "job", first.state())
    second.load(load_state(tmp_path / "state.pt", "job"))
    for run in (first, second):
        for _ in range(2):
            run.step(broken(next(crops.batches(run.iteration, 14))))
        assert run.guard.recoveries == 1
        steps(run, crops, 14)
    assert second.guard == first.guard
    assert len(parts(second)) == len(parts(first))


def test_states_that_are_not_continued(tmp_path):
    path = tmp_path / "m" / "state.pt"
    assert load_state(path, "job") is None
    save_state(path, "job", {"iteration": 3})
    assert load_state(path, "job") == {"iteration": 3}
    assert load_state(path, "another job") is None
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert load_state(path, "job") is None
    path.write_text("hello")
    assert load_state(path, "job") is None
    assert [entry.name for entry in path.parent.iterdir()] == ["state.pt"]


def test_a_state_that_cannot_be_written_leaves_the_one_before(tmp_path):
    save_state(tmp_path / "state.pt", "job", {"iteration": 3})
    with pytest.raises(AttributeError):
        save_state(tmp_path / "state.pt", "job", {"iteration": lambda: 4})
    assert load_state(tmp_path / "state.pt", "job") == {"iteration": 3}
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.pt"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_remembered_once(number):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with stop_signal() as stop:
        assert not stop.given
        os.kill(os.getpid(), number)
        assert stop.given
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def weights(number):
    return {"f": {"w": torch.tensor(float(number))}, "g": {}}


def test_the_later_of_equally_good_networks_is_kept():
    selection = Selection()
    for iteration, score in enumerate([0.5, 0.8, 0.8 - NOISE / 2, 0.7, 0.8 - 2 * NOISE], 1):
        selection.consider(iteration, score, weights(iteration))
    assert (selection.iteration, selection.best, selection.stale) == (3, 0.8, 3)
    assert selection.weights["f"]["w"] == 3
    assert selection.exhausted(3)
    assert not selection.exhausted(4)
    assert not selection.exhausted(None)
    selection.consider(6, 0.9, weights(6))
    assert (selection.iteration, selection.stale) == (6, 0)


def test_scores_that_creep_down_do_not_take_the_choice_with_them():
    selection = Selection()
    for iteration in range(1, 20):
        selection.consider(iteration, 0.8 - 0.9 * NOISE * iteration, weights(iteration))
    assert selection.iteration == 2


def test_kept_weights_are_copies():
    tensor = torch.ones(2)
    selection = Selection()
    selection.consider(1, 0.5, {"f": {"w": tensor}, "g": {}})
    tensor.zero_()
    assert selection.weights["f"]["w"].tolist() == [1, 1]
