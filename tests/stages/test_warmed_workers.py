"""Kernels are compiled once: before workers start, and for all of them."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KINDS = {"modes": "modes", "mutex": "mutex", "embedding_mutex": "embedding_mutex", "exact": "modes"}
STITCHING = {
    # Filling holes compiles more: with the quickest kind, and where it is done in another way.
    "mutex": {"fill_holes_voxels": 5},
    "exact": {"fill_holes_voxels": 5, "exact": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_workers_load_what_was_compiled_before_they_started(trained, tmp_path, kind):
    name = f"compiled-{kind}"
    chosen = {"clustering": {"kind": KINDS[kind]}, "stitching": STITCHING.get(kind, {})}
    results = trained.segment(name, **chosen)
    tree = copy.deepcopy(trained.tree)
    tree["segmentations"] = {name: tree["segmentations"]["balls"] | chosen}
    stages = {
        "modes": ["calibrate", "cluster", "relabel", "evaluate"], "mutex": ["cluster", "relabel", "evaluate"],
        "embedding_mutex": ["cluster"], "exact": ["calibrate", "cluster"],
    }[kind]  # fmt: skip
    for stage in stages:
        shutil.rmtree(results.ledger(stage), ignore_errors=True)
    places = [ROOT, ROOT / "tests", ROOT / "tests/stages"]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(map(str, places))}
    arguments = [json.dumps(tree), str(trained.layout.root), name, *stages]
    program = str(Path(__file__).with_name("stages_that_compile.py"))
    found = subprocess.run(
        [sys.executable, program, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout.splitlines()[-1])
    assert {stage: facts["by workers"] for stage, facts in told.items()} == {stage: [] for stage in stages}
    assert told["cluster"]["before"] > 10
