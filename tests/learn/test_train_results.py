"""A checkpoint says everything that is needed to use it; curves are written, and read back where a run continues."""

from __future__ import annotations

import csv

import pytest
import torch
from phantoms import eager_network
from runs import PLAN

from spoco_blocks.errors import CheckpointError
from spoco_blocks.learn.checkpoint import FORMAT, VERSION, Checkpoint, load_checkpoint, weights_digest
from spoco_blocks.learn.curves import Curves


@pytest.fixture
def checkpoint():
    network = eager_network(PLAN)
    state = network.state_dict()
    return Checkpoint(PLAN, (500.0, 500.0, 500.0), False, 2000.0, "modes", 0.3, 60, 1.2, 10, {"a": 1}, state, state)


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
    torch.save({"format": FORMAT, "version": VERSION}, tmp_path / "half.pt")
    with pytest.raises(CheckpointError, match=r"lacks .*plan"):
        load_checkpoint(tmp_path / "half.pt")
    torch.save({"format": FORMAT, "version": 99}, tmp_path / "newer.pt")
    with pytest.raises(CheckpointError, match="version 99, this program reads version 4"):
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


def test_curves_go_on_after_the_iterations_that_are_done(tmp_path):
    with Curves(tmp_path / "curves.csv", tmp_path / "tensorboard") as curves:
        for iteration in range(1, 6):
            curves.add(iteration, {"pull": 1 / iteration})
    with Curves(tmp_path / "curves.csv", tmp_path / "tensorboard", done=3) as curves:
        curves.add(4, {"pull": 0.5, "push": 0.125})
    rows = [tuple(row.values()) for row in csv.DictReader((tmp_path / "curves.csv").open())]
    assert rows == [("1", "1", ""), ("2", "0.5", ""), ("3", "0.333333", ""), ("4", "0.5", "0.125")]
    with Curves(tmp_path / "curves.csv", tmp_path / "tensorboard") as curves:
        assert curves.rows == []
