"""Slurm gets jobs as large as estimated, with GPUs where the network is applied, and gives the same arrays."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.slurm


def test_prediction_and_clustering(cluster, run, expected):
    ours = run(cluster)
    ours.finish(ours.start("--until", "cluster"))
    assert ours.digests() == expected("--until", "cluster")
    for shard in (0, 1):
        (number,) = [path.stem for path in (ours.folder / "logs/slurm/rule_embed" / f"balls_{shard}").glob("*.log")]
        job = cluster.facts(number)
        assert "gres/gpu" in job["TRES"] or "gpu" in job.get("TresPerJob", "") + job.get("TresPerNode", "")
        assert job["Partition"] == "gpu"
        estimate = json.loads((ours.results / "estimate.json").read_text())["result"]["stages"]
        needed = next(stage["memory_mb"] for stage in estimate if stage["stage"] == "embed")
        asked = int(job["MinMemoryNode"].rstrip("MG")) * (1024 if job["MinMemoryNode"].endswith("G") else 1)
        assert 2 * needed < asked < 4 * needed + 1000
