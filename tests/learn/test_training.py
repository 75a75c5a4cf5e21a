"""Training learns, repeats itself exactly, and its checkpoint says everything that is needed to use it."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from phantoms import balls, eager_network, store

from spoco_blocks.errors import CheckpointError, TrainingError
from spoco_blocks.grid import Box
from spoco_blocks.learn.checkpoint import FORMAT, Checkpoint, load_checkpoint, weights_digest
from spoco_blocks.learn.crops import Part, TrainingVolume
from spoco_blocks.learn.curves import Curves
from spoco_blocks.learn.intensity import Normalisation
from spoco_blocks.learn.network import plan_network
from spoco_blocks.learn.objective import Objective
from spoco_blocks.learn.supervision import Supervision
from spoco_blocks.learn.train import Training
from spoco_blocks.settings.sections import LossSettings, TrainingSettings
from spoco_blocks.volumes import open_volume

PLAN = plan_network((1, 1, 1), in_channels=1, embedding_channels=4, width=4, levels=2, affinities=True, planar=False)


def training(folder, iterations=25, **settings) -> Training:
    raw, labels = balls((32, 32, 32))
    region = Box.of_shape(raw.shape)
    ids = np.unique(labels)[1:4].astype(np.uint64)
    supervision = Supervision(
        open_volume(store(folder / "labels.zarr", labels)), ids, region, None, None, False, 0.3, (1, 1, 1), 0
    )
    anchors = {int(i): np.argwhere(labels == i) for i in ids}
    volume = TrainingVolume(
        open_volume(store(folder / "raw.zarr", raw)), Normalisation((40.0,), (190.0,)), supervision, anchors
    )
    part = Part(volume, region, Box((0, 0, 0), (16, 32, 32)), (True, True, True))
    chosen = TrainingSettings(iterations=iterations, learning_rate=0.02, precision="float32", **settings)
    return Training([part], PLAN, Objective(LossSettings(), (4.0,) * 3, None), (16, 16, 16), chosen, "cpu")


def test_loss_falls_and_the_run_repeats_itself(tmp_path):
    torch.set_num_threads(1)
    first, second = training(tmp_path / "a", 50), training(tmp_path / "b", 50)
    rows = [first.step() for _ in range(50)]
    again = [second.step() for _ in range(50)]
    assert rows == again
    assert all(torch.equal(a, b) for a, b in zip(first.g.parameters(), second.g.parameters(), strict=True))

    def total(row):
        return sum(value for name, value in row.items() if name not in ("gradient_norm", "consistency"))

    assert np.mean([total(row) for row in rows[-5:]]) < 0.7 * np.mean([total(row) for row in rows[:5]])
    assert "consistency" not in rows[0]
    assert "consistency" in rows[-1]
    validation = first.validate()
    assert set(validation) >= {"pull", "dice"}
    assert validation == first.validate()


def test_g_is_the_moving_average_of_f_with_its_buffers(tmp_path):
    run = training(tmp_path, ema=0.9)
    kept = {name: tensor.clone() for name, tensor in run.g.state_dict().items()}
    for iteration in range(25):
        run.step()
        momentum = min(0.9, (1 + iteration) / (10 + iteration))
        for name, tensor in run.f.state_dict().items():
            if tensor.dtype.is_floating_point:
                kept[name] = momentum * kept[name] + (1 - momentum) * tensor
    for name, tensor in run.g.state_dict().items():
        if tensor.dtype.is_floating_point:
            torch.testing.assert_close(tensor, kept[name], rtol=1e-4, atol=1e-5)


def test_steps_with_infinite_gradients_are_lost_then_training_stops(tmp_path):
    run = training(tmp_path)
    weight = run.f.head.weight
    with torch.no_grad():
        weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"lower training\.learning_rate"):
        train_to_the_end(run)


def train_to_the_end(run):
    for _ in range(25):
        run.step()


@pytest.fixture
def checkpoint():
    network = eager_network(PLAN)
    state = network.state_dict()
    return Checkpoint(PLAN, (500.0, 500.0, 500.0), False, 2000.0, 10, {"a": 1}, state, state)


def test_checkpoint_describes_itself(tmp_path, checkpoint):
    checkpoint.save(tmp_path / "m" / "checkpoint.pt")
    found = load_checkpoint(tmp_path / "m" / "checkpoint.pt")
    assert found.plan == PLAN
    assert (found.voxel_size_nm, found.coordinate_scale_nm, found.settings) == ((500,) * 3, 2000, {"a": 1})
    assert weights_digest(found) == weights_digest(checkpoint)
    x = torch.randn(1, 1, 8, 8, 8)
    assert torch.equal(found.network()(x), checkpoint.network()(x))
    with torch.no_grad():
        found.weights_ema["head.bias"] += 1
    assert weights_digest(found) != weights_digest(checkpoint)


def test_checkpoints_that_cannot_be_used(tmp_path, checkpoint):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "text.pt")
    torch.save({"format": "else"}, tmp_path / "else.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of this program"):
        load_checkpoint(tmp_path / "else.pt")
    torch.save({"format": FORMAT, "version": 1}, tmp_path / "half.pt")
    with pytest.raises(CheckpointError, match=r"lacks .*plan"):
        load_checkpoint(tmp_path / "half.pt")
    torch.save({"format": FORMAT, "version": 99}, tmp_path / "newer.pt")
    with pytest.raises(CheckpointError, match="version 99, this program reads version 1"):
        load_checkpoint(tmp_path / "newer.pt")
    checkpoint.save(tmp_path / "torn.pt")
    data = (tmp_path / "torn.pt").read_bytes()
    (tmp_path / "torn.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "torn.pt")


def test_curves_are_written_as_csv_and_for_tensorboard(tmp_path):
    with Curves(tmp_path / "curves.csv", tmp_path / "tensorboard") as curves:
        curves.add(1, {"pull": 0.5})
        curves.add(2, {"pull": 0.25, "push": 1.0})
        assert curves.means(2) == {"pull": 0.375, "push": 1.0}
    rows = list(csv.DictReader((tmp_path / "curves.csv").open()))
    assert rows == [
        {"iteration": "1", "pull": "0.5", "push": ""},
        {"iteration": "2", "pull": "0.25", "push": "1"},
    ]
    assert list((tmp_path / "tensorboard").rglob("events.out.tfevents*"))
