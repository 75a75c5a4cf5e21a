"""A throw-away Slurm, and runs of the workflow that are ready for it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from phantoms import balls, store, write_configuration
from submitting import Cluster, Run

SCRIPTS = Path(__file__).parent
NODES = 2


def why_not() -> str | None:
    """Say why no Slurm can be started here."""
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        return "Snakemake's Slurm plugin is not installed"
    if os.geteuid() != 0:
        return "starting a Slurm needs root"
    if shutil.which("slurmctld") is None and shutil.which("apt-get") is None:
        return "Slurm is not installed, and there is no apt-get to install it"
    return None


def has_cgroups() -> bool:
    return all(os.access(f"/sys/fs/cgroup/{name}/cgroup.procs", os.W_OK) for name in ("memory", "freezer"))


def start(root: Path, *, cgroup: bool, environment: dict[str, str]) -> Cluster:
    environment = environment | {"SLURM_TEST_ROOT": str(root), "SLURM_CONF": str(root / "etc/slurm.conf")}
    settings = {"CGROUP": str(int(cgroup)), "NODES": str(NODES), "CPUS": "8", "MEM_MB": "8000", "GPUS": "2"}
    done = subprocess.run(
        [SCRIPTS / "start.sh"], env=environment | settings, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        stop(root)
        pytest.skip(f"no Slurm could be started here: {(done.stderr or done.stdout).strip()[-300:]}")
    return Cluster(environment, cgroup)


def stop(root: Path) -> None:
    subprocess.run([SCRIPTS / "stop.sh"], env=os.environ | {"SLURM_TEST_ROOT": str(root)}, timeout=120, check=False)


@pytest.fixture(scope="session")
def slurm_environment(program_environment) -> dict[str, str]:
    if reason := why_not():
        pytest.skip(reason)
    # Jobs inherit it; more threads than processors make many small jobs wait for each other.
    paths = os.pathsep.join([str(SCRIPTS.parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return program_environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}


@pytest.fixture(scope="session", params=[True, False], ids=["cgroup", "linuxproc"])
def cluster(request, slurm_environment, tmp_path_factory) -> Iterator[Cluster]:
    """A Slurm that limits and kills by control groups, then one that does it by looking at processes."""
    if request.param and not has_cgroups():
        pytest.skip("control groups of version 1 cannot be written here")
    root = tmp_path_factory.mktemp("slurm", numbered=True)
    cluster = start(root, cgroup=request.param, environment=slurm_environment)
    yield cluster
    stop(root)


@pytest.fixture(scope="session")
def planned(trained, slurm_environment, tmp_path_factory):
    """Make a workflow folder in which everything before `embed` is done, here and without Slurm."""
    made: dict[tuple, Run] = {}

    def of(times=(1, 1, 1), blocks=(20, 24, 32), shards=2) -> Run:
        if (times, blocks, shards) not in made:
            folder = tmp_path_factory.mktemp("planned", numbered=True)
            raw = store(folder / "raw.zarr", np.tile(balls()[0], times))
            tree = {
                "volumes": {"balls": {"raw": {"uri": raw}}},
                "models": {"balls": {"checkpoint": str(trained.layout.model("balls").checkpoint)}},
                "segmentations": {
                    "balls": trained.tree["segmentations"]["balls"]
                    | {"blocks": {"shape_voxels": list(blocks), "halo_voxels": 8}}
                },
                "execution": {"shards": shards, "executor": "serial"},
            }
            run = Run(folder / "workflow", write_configuration(folder, tree), slurm_environment)
            run.locally("--until", "estimate")
            made[times, blocks, shards] = run
        return made[times, blocks, shards]

    return of


@pytest.fixture
def run(planned, tmp_path):
    """A copy of a planned folder, to run on Slurm."""

    def of(cluster: Cluster, **how) -> Run:
        source = planned(**how)
        shutil.copytree(source.folder, tmp_path / "workflow", symlinks=True)
        return Run(tmp_path / "workflow", source.config, cluster.environment)

    return of


@pytest.fixture(scope="session")
def expected(planned):
    """Digests of the arrays of a local run."""
    found: dict[str, dict[str, str]] = {}

    def of(*arguments: str, **how) -> dict[str, str]:
        key = f"{arguments} {how}"
        if key not in found:
            source = planned(**how)
            folder = source.folder.with_name(f"local-{time.monotonic_ns()}")
            shutil.copytree(source.folder, folder)
            local = Run(folder, source.config, source.environment)
            local.locally(*arguments)
            found[key] = local.digests()
        return found[key]

    return of
