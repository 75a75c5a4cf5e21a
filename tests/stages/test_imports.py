"""Which stages load PyTorch, and how: processes of the others start in half the time and half the memory."""

from __future__ import annotations

import os
import subprocess
import sys


def test_stages_that_read_what_is_stored_load_no_pytorch():
    stages = [
        "agree", "calibrate", "cluster", "stitch", "relabel", "recut", "mesh", "skeleton", "evaluate", "report", "view",
    ]  # fmt: skip
    code = f"""
import importlib, sys
for stage in {stages}:
    importlib.import_module("spoco_blocks.stages." + stage)
    if "torch" in sys.modules:
        sys.exit(stage + " loads PyTorch")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_before_pytorch_is_loaded_its_threads_are_told_not_to_spin_for_long():
    code = """
import os, sys
from spoco_blocks.cli import main
main(["schema"])
sys.exit("torch" in sys.modules or "GOMP_SPINCOUNT" not in os.environ)
"""
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, stdout=subprocess.DEVNULL)
