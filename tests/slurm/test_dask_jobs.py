"""Workers of Dask that are jobs of Slurm: started as blocks need them, and replaced when one is cancelled."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
import yaml
from submitting import ROOT, wait_for

pytestmark = pytest.mark.slurm

LARGE = {"times": (4, 4, 4), "blocks": (40, 48, 64), "shards": 1}
BLOCKS = 64


@pytest.fixture
def queued(cluster, run, tmp_path):
    """A run whose blockwise stages start jobs of one core."""
    ours = run(cluster, **LARGE)
    job = {"cores": 1, "processes": 1, "memory": "1500MB", "walltime": "00:10:00", "queue": "cpu", "interface": "lo"}
    log_folder = {"log-directory": str(tmp_path / "workers"), "local-directory": str(tmp_path)}
    tree = {"jobqueue": {"slurm": job | log_folder}, "distributed": {"adaptive": {"maximum": 3}}}
    (tmp_path / "dask.yaml").write_text(yaml.safe_dump(tree))
    settings = yaml.safe_load(ours.config.read_text())
    settings["execution"] = {"shards": 1, "executor": "dask", "scheduler": "slurm"}
    config = tmp_path / "queued.yaml"
    config.write_text(yaml.safe_dump(settings))
    yield replace(ours, config=config, environment=ours.environment | {"DASK_CONFIG": str(tmp_path / "dask.yaml")})
    cluster.clear()


def test_jobs_work_for_a_stage_and_are_replaced(cluster, queued, expected):
    same = expected("--until", "cluster", **LARGE)
    command = queued._command("--profile", str(ROOT / "profiles/default"), "--cores", "1", "--until", "cluster")
    with (queued.folder / "snakemake.log").open("a") as log:
        snakemake = subprocess.Popen(
            command, env=queued.environment, stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )  # fmt: skip
        queued.half_way("embed")
        workers = cluster.jobs()
        assert workers
        cluster("scancel", next(iter(workers)))
        queued.finish(snakemake)
    assert queued.digests() == same
    assert queued.done("embed") == queued.done("cluster") == BLOCKS
    # A worker has one block that it runs, and one that waits.
    assert queued.redone("embed") <= 2
    wait_for(lambda: not cluster.jobs("running,pending"), "workers to end")
