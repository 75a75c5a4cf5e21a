"""In which numbers training computes, and that a library's fault does not decide."""

from __future__ import annotations

import pytest
import torch
from runs import PLAN

from spoco_blocks.errors import SettingsError
from spoco_blocks.learn import precision
from spoco_blocks.learn.network import EmbeddingNetwork
from spoco_blocks.learn.precision import choose_precision, memory_format

SHAPE = (2, 1, 8, 16, 16)


def choose(monkeypatch, seconds, spoiled=False, shape=SHAPE):
    """Choose with given times of a step; the gradients are real, those in bfloat16 maybe spoiled."""
    step = precision._step

    def timed(network, x, name, layout):
        _, gradients = step(network, x, name, layout)
        if spoiled and name == "bfloat16":
            gradients[3] = torch.roll(gradients[3], 1)
        return seconds[name], gradients

    monkeypatch.setattr(precision, "_step", timed)
    return choose_precision("auto", EmbeddingNetwork(PLAN), shape, "cpu")


def test_bfloat16_where_it_is_clearly_faster(monkeypatch):
    assert choose(monkeypatch, {"float32": 1.0, "bfloat16": 0.5}) == "bfloat16"


def test_float32_where_bfloat16_is_hardly_faster(monkeypatch):
    assert choose(monkeypatch, {"float32": 1.0, "bfloat16": 0.9}) == "float32"


def test_float32_where_gradients_differ(monkeypatch):
    assert choose(monkeypatch, {"float32": 1.0, "bfloat16": 0.5}, spoiled=True) == "float32"


@pytest.mark.parametrize("shape", [(1, 1, 4, 64, 64), (1, 1, 8, 64, 128), (4, 1, 1, 16, 16)])
def test_shapes_that_libraries_compute_wrongly_are_not_tried(monkeypatch, shape):
    monkeypatch.setattr(precision, "_step", lambda *_: pytest.fail("must not run"))
    assert choose_precision("auto", EmbeddingNetwork(PLAN), shape, "cpu") == "float32"
    with pytest.raises(SettingsError, match=r"at least 8 voxels along z.*float32 or auto"):
        choose_precision("bfloat16", EmbeddingNetwork(PLAN), shape, "cpu")


def test_nothing_is_left_behind():
    network = EmbeddingNetwork(PLAN)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert choose_precision("auto", network, SHAPE, "cpu") in {"float32", "bfloat16"}
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_channels_side_by_side_on_a_gpu_and_in_half_precision():
    assert memory_format("auto", "cuda", "float32") == torch.channels_last_3d
    assert memory_format("auto", "cpu", "bfloat16") == torch.channels_last_3d
    assert memory_format("auto", "cpu", "float32") == torch.contiguous_format
    assert memory_format(True, "cpu", "float32") == torch.channels_last_3d
