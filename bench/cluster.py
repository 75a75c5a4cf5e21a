"""The demo's segmentation in threads, in Dask processes, on S3 and as Slurm jobs: what each costs beside the work."""

from __future__ import annotations

import copy
import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bench.frame import Claim, Report, Row
from bench.object_store import s3_bucket
from bench.workflow import ROOT, run_workflow
from spoco_blocks.engine.layout import Layout
from spoco_blocks.grid import Box
from spoco_blocks.volumes import open_volume

SLURM = ROOT / "tests/slurm"
RAW = "data/lightsheet_nuclei.zarr"
REFUSE_EVERY = 50
ON_SLURM = (
    "--executor", "slurm", "--jobs", "10", "--default-resources", "mem_mb=4000", "runtime=60", "--slurm-no-account",
    "--slurm-partition-config", str(SLURM / "partitions.yaml"), "--slurm-status-command", "squeue",
    "--slurm-init-seconds-before-status-checks", "5", "--latency-wait", "5",
)  # fmt: skip


def segmentation(checkpoint: Path, raw: str = RAW, **execution: Any) -> dict[str, Any]:
    """Give the demo with a model that is trained."""
    tree: dict[str, Any] = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    tree["models"]["demo"] = {"checkpoint": str(checkpoint)}
    volume = tree["volumes"]["demo"]
    del volume["labels"]
    volume["raw"]["uri"], volume["truth"]["uri"] = raw, f"{raw}/labels/nuclei"
    tree["execution"] = {"shards": 1, **execution}
    return tree


def train(folder: Path) -> Path:
    """Train the demo's first model; give its checkpoint."""
    tree = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    del tree["models"]["demo"]["pseudo_labels"]
    return Layout(run_workflow(folder, tree, "results/models/demo/train.json")).model("demo").checkpoint


def run_one(folder: Path, tree: dict[str, Any], options: Sequence[str] = ()) -> tuple[float, dict[str, str]]:
    """Segment; give the seconds that it took, and a digest of each array."""
    start = time.perf_counter()
    results = Layout(run_workflow(folder, copy.deepcopy(tree), options=options)).segmentation("demo")
    seconds = time.perf_counter() - start
    digests = {}
    for uri in (results.embeddings, results.foreground, results.affinities, results.fragments, results.segments):
        volume = open_volume(uri)
        voxels = np.ascontiguousarray(volume.read(Box.of_shape(volume.meta.shape)))
        digests[uri.rpartition("/")[2]] = hashlib.sha256(voxels.tobytes()).hexdigest()
    return seconds, digests


@contextmanager
def slurm(folder: Path) -> Iterator[bool]:
    """Start the Slurm of the tests; gives whether there is one."""
    environment = {"SLURM_TEST_ROOT": str(folder / "slurm"), "SLURM_CONF": str(folder / "slurm/etc/slurm.conf")}
    os.environ.update(environment | {"CGROUP": "0"})
    try:
        start = partial(subprocess.run, [SLURM / "start.sh"], check=False, timeout=300, stdout=subprocess.DEVNULL)
        yield os.geteuid() == 0 and start().returncode == 0
    finally:
        subprocess.run([SLURM / "stop.sh"], check=False)


def upload(bucket: str) -> str:
    """Bring the demo's volume to a bucket."""
    from s3fs import S3FileSystem

    # Clients of an earlier server know its address only.
    S3FileSystem.clear_instance_cache()
    S3FileSystem(use_listings_cache=False).put(str(ROOT / RAW), f"{bucket}/raw", recursive=True)
    return f"{bucket}/raw"


def run(quick: bool) -> Report:
    """Segment in each way, once; `quick` leaves Slurm out."""
    found: dict[str, tuple[float, dict[str, str]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        checkpoint = train(folder / "model")
        found["threads"] = run_one(folder / "threads", segmentation(checkpoint, executor="threads"))
        found["Dask"] = run_one(folder / "dask", segmentation(checkpoint))
        for name, every in {"S3": 0, f"S3, every {REFUSE_EVERY}th request refused": REFUSE_EVERY}.items():
            with s3_bucket(0, every) as bucket:
                tree = segmentation(checkpoint, upload(bucket), arrays=f"{bucket}/arrays")
                found[name] = run_one(folder / f"s3-{every}", tree)
        if not quick:
            with slurm(folder) as there:
                if there:
                    found["Slurm"] = run_one(folder / "jobs", segmentation(checkpoint), ON_SLURM)
    seconds, same = found.pop("threads")
    rows = [Row("the demo, trained", f"{name}: seconds", each, seconds, "threads") for name, (each, _) in found.items()]
    differ = sum(digests != same for _, digests in found.values())
    notes = (
        [] if quick or "Slurm" in found else ["No Slurm could be started here: it needs root, and Debian or Ubuntu."]
    )
    return Report(rows, [Claim("ways whose arrays differ from those of threads", differ, at_most=0)], notes)
