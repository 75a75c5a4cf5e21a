from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.predict import flops, make_task, plan_of
from spoco_blocks.learn.network import EmbeddingNetwork
from spoco_blocks.learn.predict import Predictor


@pytest.mark.parametrize("preset", ["tiny", "base"])
def test_operations_are_those_that_torch_counts(preset):
    plan = plan_of(preset)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        EmbeddingNetwork(plan).eval()(torch.zeros(1, 1, 16, 16, 16))
    assert flops(plan) * 16**3 == pytest.approx(counted.get_total_flops())


def test_blocks_that_are_written_are_the_prediction(tmp_path):
    plan = plan_of("tiny")
    predictor = Predictor(EmbeddingNetwork(plan).eval())
    task = make_task(tmp_path, plan, (32, 32, 64), (32, 32, 32), "uint16")
    for block in task.grid:
        task.write(block, predictor(task.read(block), block.inner_local))
    whole = predictor(task.read(type(task.grid)((32, 32, 64), (32, 32, 64)).block(0)))
    written = task.embeddings.read(task.grid.block(1).inner)
    np.testing.assert_allclose(written, whole.embeddings[..., 32:], rtol=1e-3, atol=1e-4)
