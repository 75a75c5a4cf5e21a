"""Slurm gets jobs as large as estimated, with GPUs where the network is applied, and gives the same arrays."""

from __future__ import annotations

import json
import time

import pytest
from submitting import ARRAYS, SHARDS

from spoco_blocks.engine.frames import DONE, RUN

pytestmark = pytest.mark.slurm

# Stages of seconds share a job here; on real volumes each has jobs of its own.
TOGETHER = [f"{rule}=all" for rule in ("stitch", "relabel", "recut", "pyramid", "evaluate", "report")]


def test_from_prediction_to_report(cluster, run, expected):
    ours = run()
    begun = time.time()
    ours.finish(ours.start("--groups", *TOGETHER))
    wall = time.time() - begun
    assert ours.digests(ARRAYS) == expected
    assert "asked for</th>" in (ours.results / "report.html").read_text()
    estimate = json.loads((ours.results / "estimate.json").read_text())["result"]["stages"]
    needed = next(stage["memory_mb"] for stage in estimate if stage["stage"] == "embed")
    for shard in range(SHARDS):
        job = cluster.facts(job_of(ours, "embed", shard))
        assert "gpu" in job.get("TresPerJob", "") + job.get("TresPerNode", "")
        assert job["Partition"] == "gpu"
        asked = int(job["MinMemoryNode"].rstrip("MG")) * (1024 if job["MinMemoryNode"].endswith("G") else 1)
        assert 2 * needed < asked < 4 * needed + 1000
        assert cluster.facts(job_of(ours, "cluster", shard))["Partition"] == "cpu"
    print(f"\nfrom prediction to report on Slurm: {wall:.0f} s\n| job | queued s | start-up s | work s | end s |")
    for stage in ("embed", "cluster"):
        for shard in range(SHARDS):
            print(f"| {stage} {shard} | {' | '.join(f'{t:.0f}' for t in parts(cluster, ours, stage, shard))} |")


def job_of(run, stage, shard) -> str:
    """Number of the only job of a shard."""
    (log,) = (run.folder / f"logs/slurm/rule_{stage}" / f"balls_{shard}").glob("*.log")
    return log.stem


def parts(cluster, run, stage, shard) -> list[float]:
    """Seconds in the queue, until the first block, of blocks, and after the last one."""
    job = cluster.facts(job_of(run, stage, shard))
    submitted, started, ended = (float(job[f"{name}Time"]) for name in ("Submit", "Start", "End"))
    first, last = run.frames(stage, shard, RUN)[0].time, run.frames(stage, shard, DONE)[-1].time
    return [started - submitted, first - started, last - first, ended - last]
