"""Workers of Dask that are jobs of Slurm: started as blocks need them, and replaced when one is cancelled."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from submitting import ARRAYS, BLOCKS, ROOT, Run, wait_for

pytestmark = pytest.mark.slurm

HERE = Path(__file__).parent


@pytest.fixture
def queued(cluster, run, tmp_path):
    """Make runs whose blockwise stages start jobs of one core."""

    def of(preload: Path, seconds: float) -> Run:
        job = {
            "cores": 1, "processes": 1, "memory": "1500MB", "walltime": "00:10:00", "queue": "cpu", "interface": "lo",
            "log-directory": str(tmp_path / "workers"), "local-directory": str(tmp_path),
            "worker-extra-args": ["--preload", str(preload)],
        }  # fmt: skip
        patience = {"adaptive": {"maximum": 2}, "deploy": {"lost-worker-timeout": "2s"}}
        (tmp_path / "dask.yaml").write_text(yaml.safe_dump({"jobqueue": {"slurm": job}, "distributed": patience}))
        slowly = str(HERE / "slowly/spoco-blocks")
        ours = run(DASK_CONFIG=str(tmp_path / "dask.yaml"), BLOCK_SECONDS=str(seconds), SLOW_PROGRAM=slowly)
        settings = yaml.safe_load(ours.config.read_text())
        settings["execution"] = {"shards": 1, "executor": "dask", "scheduler": "slurm"}
        (tmp_path / "queued.yaml").write_text(yaml.safe_dump(settings))
        return replace(ours, config=tmp_path / "queued.yaml")

    yield of
    cluster.clear()


def start(queued: Run, until: str) -> subprocess.Popen[str]:
    """Start Snakemake here; only workers are jobs."""
    command = queued._command("--profile", str(ROOT / "profiles/default"), "--cores", "1", "--until", until)
    with (queued.folder / "snakemake.log").open("a") as log:
        return subprocess.Popen(
            command, env=queued.environment, stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )


def test_jobs_work_for_a_stage_and_are_replaced(cluster, queued, expected):
    ours = queued(HERE / "slow_worker.py", seconds=3)
    snakemake = start(ours, "cluster")
    ours.half_way("embed")
    first = set(cluster.jobs())
    cluster("scancel", *first)
    wait_for(lambda: set(cluster.jobs()) - first, "another worker")
    assert ours.done("embed") < BLOCKS
    ours.finish(snakemake)
    assert ours.done("embed") == ours.done("cluster") == BLOCKS
    assert ours.digests(ARRAYS[:4]) == {name: expected[name] for name in ARRAYS[:4] if name in expected}
    redone = ours.redone("embed")
    print(f"\n| all {len(first)} workers cancelled | {redone} | identical |")
    # Each worker has one block that it runs, and one that waits.
    assert redone <= 2 * len(first)
    wait_for(lambda: not cluster.jobs("running,pending"), "workers to end")


def test_jobs_that_leave_no_worker_are_told(cluster, queued, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("raise ValueError('this worker does not start')")
    ours = queued(broken, seconds=0)
    snakemake = start(ours, "embed")
    ours.finish(snakemake, code=1)
    assert "ended and no worker came of them" in ours.said
