"""Training learns, repeats itself exactly, averages f into g, and survives what is not finite."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from runs import broken, equal, loader, parts, same, steps, training, write_balls

from spoco_blocks.errors import TrainingError
from spoco_blocks.learn.guard import ATTEMPTS, IN_A_ROW, Guard
from spoco_blocks.learn.schedule import one_cycle
from spoco_blocks.learn.train import STATE_EVERY


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def crops(tmp_path):
    write_balls(tmp_path)
    return loader(tmp_path)


def test_loss_falls_and_the_run_repeats_itself(crops):
    first, second = training(50), training(50)
    rows, again = steps(first, crops, 50), steps(second, crops, 50)
    assert rows == again
    assert same(first, second)

    # Without push, which depends on how many objects a patch happens to hold.
    totals = [row["pull"] + row["dice"] for row in rows if "dice" in row]
    assert np.mean(totals[-8:]) < 0.7 * np.mean(totals[:4])
    assert "consistency" not in rows[0]
    assert "consistency" in rows[-1]


def test_nothing_is_drawn_from_global_generators(crops):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - the global generator is what must not matter
    first = training(5)
    steps(first, crops, 5)
    drawn = torch.rand(1), np.random.random()  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert drawn == (torch.rand(1), np.random.random())  # noqa: NPY002


def test_the_gradient_of_each_module_adds_up(crops):
    row = steps(training(), crops, 1)[0]
    squares = [row[f"gradient_norm_{name}"] ** 2 for name in ("down", "narrow", "up", "head")]
    assert row["gradient_norm"] == pytest.approx(np.sqrt(sum(squares)), rel=1e-5)


@pytest.mark.parametrize("iterations", [7, 25, 250, 2000])
def test_schedule_is_torchs_one_cycle(iterations):
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=0.006)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.006, total_steps=iterations, pct_start=0.15)
    for iteration in range(iterations):
        part, momentum = one_cycle(iteration, iterations)
        group = optimizer.param_groups[0]
        assert 0.006 * part == pytest.approx(group["lr"], rel=1e-6)
        assert momentum == pytest.approx(group["betas"][0], rel=1e-6)
        if iteration < iterations - 1:
            optimizer.step()
            schedule.step()


def test_g_is_the_moving_average_of_f_with_its_buffers(crops):
    run = training(ema=0.9)
    kept = {name: tensor.clone() for name, tensor in run.g.state_dict().items()}
    for iteration, batch in enumerate(crops.batches(0, 25)):
        run.step(batch)
        momentum = min(0.9, (1 + iteration) / (10 + iteration))
        for name, tensor in run.f.state_dict().items():
            if tensor.dtype.is_floating_point:
                kept[name] = momentum * kept[name] + (1 - momentum) * tensor
    for name, tensor in run.g.state_dict().items():
        if tensor.dtype.is_floating_point:
            torch.testing.assert_close(tensor, kept[name], rtol=1e-4, atol=1e-5)


def test_a_step_that_is_not_finite_leaves_no_trace(crops):
    run = training(10)
    steps(run, crops, 4)
    before = copy.deepcopy(parts(run))
    values, _ = run.step(broken(next(crops.batches(4, 5))))
    assert values["lost"] == 1
    assert all(np.isfinite(list(values.values())))
    assert all(equal(a, b) for a, b in zip(before, parts(run), strict=True))
    assert run.iteration == 5
    assert "lost" not in steps(run, crops, 6)[0]
    assert (run.guard.lost, run.guard.row, run.guard.recoveries) == (1, 0, 0)


def test_weights_that_are_lost_come_back_with_half_the_rate(crops):
    run = training(2 * STATE_EVERY)
    steps(run, crops, STATE_EVERY)
    good = copy.deepcopy(parts(run))
    steps(run, crops, STATE_EVERY + 3)
    with torch.no_grad():
        run.f.head.weight.fill_(torch.nan)
    assert all("lost" in row for row in steps(run, crops, STATE_EVERY + 3 + IN_A_ROW))
    assert all(equal(a, b) for a, b in zip(good, parts(run), strict=True))
    assert run.guard.factor == 0.5
    (row,) = steps(run, crops, run.iteration + 1)
    assert "lost" not in row
    peak = one_cycle(run.iteration - 1, run.settings.iterations)[0]
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0.02 * peak / 2)


def test_training_stops_when_nothing_helps(crops):
    run = training(40)
    batch = broken(next(crops.batches(0, 1)))
    for _ in range(IN_A_ROW * ATTEMPTS - 1):
        run.step(batch)
    with pytest.raises(TrainingError, match=r"iteration 15: not finite: .*foreground.*Lower training\.learning_rate"):
        run.step(batch)


def test_lost_steps_that_are_not_in_a_row_are_only_counted():
    guard = Guard()
    for iteration in range(50):
        assert not guard.lose(iteration, "pull", 0.1, "float32")
        guard.fine()
    assert (guard.lost, guard.factor) == (50, 1.0)


def test_float16_scales_its_gradients(crops):
    run = training(20, precision="float16")
    exact = training(20)
    rows, expected = steps(run, crops, 4), steps(exact, crops, 4)
    assert run.scaler.get_scale() > 1
    assert rows[0]["gradient_norm"] == pytest.approx(expected[0]["gradient_norm"], rel=0.05)
    run.scaler.update(2.0**60)  # float16 ends at 65504: all gradients are infinite until the scale has come down
    before = copy.deepcopy(parts(run))
    run.step(next(crops.batches(4, 5)))
    assert all(equal(a, b) for a, b in zip(before, parts(run), strict=True))
    assert run.scaler.get_scale() == 2.0**59
    assert run.guard.lost == 0


@pytest.mark.parametrize("option", ["activation_checkpointing", "channels_last"])
def test_options_that_save_memory_or_time_do_not_change_the_result(crops, option):
    run, other = training(3), training(3, **{option: True})
    rows, again = steps(run, crops, 3), steps(other, crops, 3)
    for row, expected in zip(again, rows, strict=True):
        assert row == pytest.approx(expected, rel=2e-3, abs=1e-5)
    for (name, a), b in zip(run.f.named_buffers(), other.f.buffers(), strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=5e-3, atol=5e-3, msg=name)
