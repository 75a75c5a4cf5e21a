"""What is written twice says the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from spoco_blocks.settings import json_schema, load_settings

ROOT = Path(__file__).parent.parent


def pins(lines: list[str]) -> dict[str, str]:
    found = dict(line.strip().split("==") for line in lines if "==" in line)
    return {normal(name): version for name, version in found.items()}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_schema_is_generated_from_the_settings():
    kept = (ROOT / "workflow/schemas/config.schema.json").read_text()
    assert kept == json_schema(), "run: make format"


def test_conda_environment_has_the_locked_packages():
    lock = pins((ROOT / "requirements.lock").read_text().splitlines())
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    found = pins(pip)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + extras["fast"] + extras["s3"] + extras["skeletons"] + extras["slurm"]
    names = {normal(re.split(r"[\[>=<]", requirement)[0]) for requirement in wanted}
    assert set(found) == names
    assert found == {name: lock[name] for name in names}


@pytest.mark.parametrize("path", sorted((ROOT / "config").rglob("*.yaml")), ids=lambda path: path.name)
def test_configurations_are_valid(path):
    load_settings(path)


def test_no_file_is_too_long_to_hold_in_mind():
    folders = ("spoco_blocks", "tests", "bench", "workflow")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".smk")]
    long = {str(path.relative_to(ROOT)): n for path in files if (n := len(path.read_text().splitlines())) > 300}
    assert not long
