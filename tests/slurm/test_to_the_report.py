"""The rest of the workflow on Slurm, in jobs of several rules."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slurm

# Stages of seconds share a job here; on real volumes each has jobs of its own.
TOGETHER = [f"{rule}=all" for rule in ("stitch", "relabel", "pyramid", "evaluate", "report")]


def test_from_prediction_to_report(cluster, run, expected):
    ours = run(cluster)
    ours.finish(ours.start("--groups", *TOGETHER))
    assert (ours.results / "report.html").exists()
    assert ours.digests() == expected()
