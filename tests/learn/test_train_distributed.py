"""Two processes that train together do what one does with a batch of two."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import write_balls

SCRIPT = Path(__file__).parent / "two_processes.py"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    write_balls(folder)
    path = os.pathsep.join([str(SCRIPT.parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    together = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for start in ([sys.executable], together):
        done = subprocess.run(
            [*start, str(SCRIPT), str(folder)], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    return {path.stem: torch.load(path, weights_only=True) for path in folder.glob("*.pt")}


def test_the_gradient_is_that_of_the_batch_of_both(found):
    alone = found["1-0"]["frozen"]
    assert alone["gradient"].norm() > 0.1
    for rank in ("2-0", "2-1"):
        both = found[rank]["frozen"]
        torch.testing.assert_close(both["gradient"], alone["gradient"], rtol=1e-3, atol=1e-5)
        difference = torch.linalg.vector_norm(both["gradient"] - alone["gradient"])
        assert difference < 1e-4 * alone["gradient"].norm()


def test_all_processes_have_the_same_network_whatever_each_of_them_saw(found):
    first, second = (found[rank]["uneven"]["state"] for rank in ("2-0", "2-1"))
    for network in ("f", "g"):
        for name, tensor in first[network].items():
            assert torch.equal(tensor, second[network][name]), name
    assert first["guard"] == second["guard"] == {"lost": 1, "row": 0, "recoveries": 0}


def test_a_step_is_lost_for_all_or_for_none(found):
    for rank in ("2-0", "2-1"):
        assert found[rank]["uneven"]["lost"] == [False, True, False, False, False]


def test_what_one_process_says_all_hear(found):
    for rank in ("2-0", "2-1"):
        assert found[rank]["uneven"]["flags"] == [
            (True, False),
            (False, True),
            (False, False),
            (False, False),
            (True, True),
        ]
        assert found[rank]["agreed"] == "from 0"
