"""Workers of Dask that are jobs of Slurm: started as blocks need them, and replaced when one is cancelled."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from submitting import ARRAYS, BLOCKS, ROOT, wait_for

pytestmark = pytest.mark.slurm


@pytest.fixture
def queued(cluster, run, tmp_path):
    """A run whose blockwise stages start jobs of one core."""
    job = {
        "cores": 1, "processes": 1, "memory": "1500MB", "walltime": "00:10:00", "queue": "cpu", "interface": "lo",
        "log-directory": str(tmp_path / "workers"), "local-directory": str(tmp_path),
        "worker-extra-args": ["--preload", str(Path(__file__).parent / "slow_worker.py")],
    }  # fmt: skip
    tree = {"jobqueue": {"slurm": job}, "distributed": {"adaptive": {"maximum": 3}}}
    (tmp_path / "dask.yaml").write_text(yaml.safe_dump(tree))
    slowly = str(Path(__file__).parent / "slowly/spoco-blocks")
    ours = run(DASK_CONFIG=str(tmp_path / "dask.yaml"), BLOCK_SECONDS="1", SLOW_PROGRAM=slowly)
    settings = yaml.safe_load(ours.config.read_text())
    settings["execution"] = {"shards": 1, "executor": "dask", "scheduler": "slurm"}
    (tmp_path / "queued.yaml").write_text(yaml.safe_dump(settings))
    yield replace(ours, config=tmp_path / "queued.yaml")
    cluster.clear()


def test_jobs_work_for_a_stage_and_are_replaced(cluster, queued, expected):
    command = queued._command("--profile", str(ROOT / "profiles/default"), "--cores", "1", "--until", "cluster")
    with (queued.folder / "snakemake.log").open("a") as log:
        snakemake = subprocess.Popen(
            command, env=queued.environment, stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        queued.half_way("embed")
        first = set(cluster.jobs())
        cluster("scancel", min(first))
        wait_for(lambda: set(cluster.jobs()) - first or queued.done("embed") == BLOCKS, "another worker")
        queued.finish(snakemake)
    assert queued.done("embed") == queued.done("cluster") == BLOCKS
    assert queued.digests(ARRAYS[:4]) == {name: expected[name] for name in ARRAYS[:4] if name in expected}
    # A worker has one block that it runs, and one that waits.
    redone = queued.redone("embed")
    print(f"\n| {len(first)} workers, one cancelled | {redone} | identical |")
    assert redone <= 2
    wait_for(lambda: not cluster.jobs("running,pending"), "workers to end")
