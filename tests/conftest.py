"""Where the real volumes are, and how tests call the program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# As the program does, before PyTorch is loaded: threads that wait for each other soon sleep.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import pytest
from phantoms import ball_configuration
from pipeline import Trained

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout
from spoco_blocks.settings import jobs, parse_settings

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder of real microscopy volumes; tests that need them are skipped where it is absent."""
    folder = Path(os.environ.get("SPOCO_BLOCKS_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the real volumes are not here; name their folder in SPOCO_BLOCKS_DATA")
    return folder


@pytest.fixture(scope="session")
def program_environment() -> dict[str, str]:
    """Environment in which this package's programs are found, whichever interpreter runs the tests."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture
def snakemake(program_environment, tmp_path):
    """Run the workflow in a folder of its own."""

    def run(config: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [
            "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile"), "--profile", str(ROOT / "profiles/default"),
            "--directory", str(tmp_path), "--configfile", str(config), *arguments,
        ]  # fmt: skip
        result = subprocess.run(command, env=program_environment, capture_output=True, text=True, check=False)
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Trained:
    """One trained model for all tests of what comes after training."""
    from spoco_blocks.stages.labels import run_labels
    from spoco_blocks.stages.train import run_train

    folder: Path = tmp_path_factory.mktemp("trained")
    tree = ball_configuration(folder, iterations=120)
    settings = parse_settings(tree)
    layout = Layout(folder / "results")
    run_labels(jobs.labels_job(settings, "balls"), layout.volume("balls"), Execution())
    run_train(jobs.train_job(settings, "balls"), layout, threads=1)
    return Trained(layout, tree)


@pytest.fixture(scope="session")
def s3():
    """An S3 server in this process, which everything started from here finds through the environment."""
    from s3_server import s3_server

    with s3_server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def impatient(s3, monkeypatch):
    """Clients that soon give up."""
    from s3_server import S3FileSystem, forget_clients

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(S3FileSystem, "retries", 2)
    forget_clients()
    yield
    forget_clients()
