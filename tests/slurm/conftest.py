"""A throw-away Slurm, and runs of the workflow that are ready for it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from phantoms import balls, store, write_configuration
from submitting import ARRAYS, SHARDS, Cluster, Run

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
    try:
        subprocess.run(
            [SCRIPTS / "start.sh"], env=environment | settings, capture_output=True, text=True, timeout=300, check=True
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        stop(root)
        pytest.skip(f"no Slurm could be installed or started here: {error} {str(error.stderr)[-300:]}")
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
def planned(trained, slurm_environment, tmp_path_factory) -> Run:
    """Make a workflow folder in which everything before `embed` is done, here and without Slurm."""
    folder = tmp_path_factory.mktemp("planned")
    raw = store(folder / "raw.zarr", np.tile(balls()[0], (1, 1, 2)))
    tree = {
        "volumes": {"balls": {"raw": {"uri": raw}}},
        "models": {"balls": {"checkpoint": str(trained.layout.model("balls").checkpoint)}},
        "segmentations": {
            "balls": trained.tree["segmentations"]["balls"]
            | {"blocks": {"shape_voxels": [20, 24, 16], "halo_voxels": 8}}
        },
        "execution": {"shards": SHARDS, "executor": "serial"},
    }
    run = Run(folder / "workflow", write_configuration(folder, tree), slurm_environment)
    run.locally("--until", "estimate")
    return run


@pytest.fixture(scope="session")
def expected(planned, tmp_path_factory) -> dict[str, str]:
    """Digests of the arrays of a local run, made the first time that a test asks."""
    folder = tmp_path_factory.mktemp("local") / "workflow"
    shutil.copytree(planned.folder, folder, symlinks=True)
    local = Run(folder, planned.config, planned.environment)
    local.locally("--until", "relabel")
    return local.digests(ARRAYS)


@pytest.fixture
def run(planned, cluster, tmp_path):
    """Copy the planned folder, to run on Slurm."""

    def of(name="workflow", programs: Path | None = None, **environment: str) -> Run:
        shutil.copytree(planned.folder, tmp_path / name, symlinks=True)
        if programs is not None:
            environment["PATH"] = f"{programs}{os.pathsep}{cluster.environment['PATH']}"
        return Run(tmp_path / name, planned.config, cluster.environment | environment)

    return of
