"""The workflow on Slurm gives what it gives here."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.slurm

# Stages that follow each other in seconds share a job here; on real volumes each has jobs of its own.
TOGETHER = [f"{rule}=middle" for rule in ("calibrate", "cluster")] + [
    f"{rule}=end" for rule in ("stitch", "relabel", "pyramid", "evaluate", "report")
]


def test_everything_from_prediction_to_report(cluster, run, expected):
    ours = run(cluster)
    ours.finish(ours.start("--groups", *TOGETHER))
    assert (ours.results / "report.html").exists()
    assert ours.digests() == expected()
    for shard in (0, 1):
        (number,) = [path.stem for path in (ours.folder / "logs/slurm/rule_embed" / f"balls_{shard}").glob("*.log")]
        job = cluster.facts(number)
        assert "gres/gpu" in job["TRES"] or "gpu" in job.get("TresPerJob", "") + job.get("TresPerNode", "")
        assert job["Partition"] == "gpu"
        estimate = json.loads((ours.results / "estimate.json").read_text())["result"]["stages"]
        needed = next(stage["memory_mb"] for stage in estimate if stage["stage"] == "embed")
        asked = int(job["MinMemoryNode"].rstrip("MG")) * (1024 if job["MinMemoryNode"].endswith("G") else 1)
        assert 2 * needed < asked < 4 * needed + 1000
