"""Profiles: the default one overrides nothing of a site's, and a site's can be called by its name."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from phantoms import ball_configuration, write_configuration

ROOT = Path(__file__).parent.parent.parent


def read(name: str) -> dict:
    return yaml.safe_load((ROOT / f"profiles/{name}/profile.v9+.yaml").read_text())


def test_the_default_overrides_nothing_of_a_site():
    default = read("default")
    assert not any(isinstance(value, dict | list) for value in default.values())
    # Both may bound the threads of a job: --cores does.
    assert not set(default) & set(read("slurm"))
    assert "executor" not in default


def test_a_rule_never_asks_for_retries():
    # They would run inside the job as well, with the memory that was too little.
    for path in (ROOT / "workflow").rglob("*.smk"):
        assert "retries:" not in path.read_text()


def test_the_slurm_profile_is_found_by_its_name_from_the_root(tmp_path, program_environment):
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="Snakemake's Slurm plugin is not installed")
    config = write_configuration(tmp_path, ball_configuration(tmp_path))
    command = ["snakemake", "--profile", "slurm", "--configfile", str(config), "--dry-run"]
    arguments = ["--set-resources", "train:runtime=5000", "--config", f"results={tmp_path / 'results'}"]
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, env=program_environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    train = done.stdout[done.stdout.index("rule train:") :]
    # Bounded by the profile, whose limits are those of a job.
    assert "runtime=720" in train[: train.index("rule ", 5)]
