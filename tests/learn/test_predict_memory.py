"""Memory that is really short, and what a prediction really takes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and peaks of a process are read as Linux gives")

SETUP = """
import logging, re, resource, sys
import numpy as np
import torch
from phantoms import eager_network
from spoco_blocks.errors import ResourceError
from spoco_blocks.learn.network_plan import plan_network
from spoco_blocks.learn.predict import Predictor

logging.basicConfig(stream=sys.stdout, format="%(message)s")
torch.set_num_threads(1)

def network(width, levels=2):
    plan = plan_network((10.0,) * 3, in_channels=1, embedding_channels=4, width=width, levels=levels, affinities=True,
                        planar=False)
    return eager_network(plan)

def status(key):
    with open("/proc/self/status") as file:
        return int(re.search(key + r":\\s+(\\d+)", file.read())[1]) * 1024

def limit_to(limit):
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

def leave(megabytes):
    limit_to(status("VmSize") + megabytes * 2**20)

def lift():
    limit_to(resource.RLIM_INFINITY)
"""


def run(code: str) -> str:
    """Run code in a process of its own, whose memory is its own."""
    environment = {"PYTHONPATH": f"{TESTS}:{TESTS.parent}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SETUP + code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize(("patch", "batch"), [(None, 1), ((96, 28, 28), 16)])
def test_patches_shrink_until_they_fit_and_stay_small(patch, batch):
    """At width 32 two tensors of the whole array, or of 16 patches, take more than is left; those of a part do not."""
    said = run(f"""
raw = np.random.default_rng(0).normal(size=(1, 96, 96, 96)).astype(np.float32)
whole = Predictor(network(32))(raw)
tight = Predictor(network(32), patch_voxels={patch}, batch={batch})
for _ in range(2):
    leave(220)
    found = tight(raw)
    lift()
    for name in ("embeddings", "foreground", "affinities"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=0, atol=1e-5)
    del found
    print("again")
""")
    first, second, _ = said.split("again")
    sentence = r"memory is short: from now on (\d+) patches of \((\d+), (\d+), (\d+)\) voxels at once"
    patches, *shape = map(int, re.fullmatch(sentence, first.strip()).groups())
    assert patches < batch if batch > 1 else min(shape) < 96
    assert not second.strip()


def test_where_nothing_fits_it_says_what_to_do():
    said = run("""
predictor = Predictor(network(512, levels=3))
raw = np.zeros((1, 56, 56, 56), np.float32)
leave(60)
try:
    predictor(raw)
except ResourceError as error:
    print(error)
try:
    Predictor(network(2))(np.broadcast_to(np.float32(0), (1, 400, 400, 400)))
except ResourceError as error:
    print(error)
""")
    patch, result = said.strip().splitlines()
    assert patch.startswith("a patch of (52, 52, 52) voxels, the smallest that there is, does not fit in memory. Use ")
    assert result.startswith("the result of (400, 400, 400) voxels does not fit in memory. Use smaller blocks ")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("preset", "voxel_size_nm", "planar", "shape", "patch"),
    [
        ("tiny", (10.0, 10.0, 10.0), False, (100, 100, 100), None),
        ("tiny", (10.0, 10.0, 10.0), False, (100, 100, 100), (32, 32, 32)),
        ("base", (40.0, 10.0, 10.0), False, (64, 64, 64), None),
        ("base", (10.0, 10.0, 10.0), True, (8, 160, 160), None),
    ],
)
def test_projected_memory_is_that_of_a_process(preset, voxel_size_nm, planar, shape, patch, precision):
    """Up to 2.0 times was measured; what glibc keeps differs from run to run."""
    said = run(f"""
from spoco_blocks.engine.runner import process_mb
from spoco_blocks.learn.predict_memory import memory_bytes, model_bytes
from spoco_blocks.settings.network import PRESETS
import spoco_blocks.stages.embed

base, empty = status("VmRSS"), status("RssAnon")
width, levels, channels = PRESETS["{preset}"]
plan = plan_network({voxel_size_nm}, in_channels=1, embedding_channels=channels, width=width, levels=levels,
                    affinities=True, planar={planar})
predictor = Predictor(eager_network(plan), precision="{precision}", patch_voxels={patch})
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
loaded, files, full = status("VmRSS"), status("RssFile"), status("RssAnon")
raw = np.random.default_rng(0).random(size=(1, *{shape}), dtype=np.float32)
predictor(raw)
projected = memory_bytes(plan, {shape}, precision="{precision}", patch_voxels={patch})
# Pages of libraries come and go with what the system needs, and count as the process.
peak = status("VmHWM") - loaded - max(0, status("RssFile") - files)
print(projected / peak, base / (process_mb(applies_network=True) * 2**20), (full - empty) / model_bytes(plan))
""")
    ratio, base, model = map(float, said.split())
    assert 1 <= ratio < 2.4, said
    assert 0.5 < base < 1.2
    assert model < 1, said
