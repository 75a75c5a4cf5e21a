"""Which stages need PyTorch: processes of the others start in half the time and half the memory."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("stage", ["calibrate", "cluster", "stitch", "relabel", "evaluate", "report"])
def test_stages_that_read_what_is_stored_load_no_pytorch(stage):
    code = f"import sys, spoco_blocks.stages.{stage}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
