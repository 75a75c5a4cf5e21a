"""Running the workflow in folders of their own, and never twice for the same configuration."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from spoco_blocks.engine.manifest import write_atomically
from spoco_blocks.settings import jobs, parse_settings

ROOT = Path(__file__).parent.parent


def run_workflow(
    folder: Path,
    tree: Mapping[str, Any],
    *targets: str,
    data: Mapping[str, Path] | None = None,
    options: Sequence[str] = (),
) -> Path:
    """Run the workflow on a configuration; give its results folder.

    Parameters
    ----------
    folder : Path
        Where it runs; results that are there are continued.
    tree : mapping
        The configuration.
    *targets : str
        Rules, or files below the results folder; none = everything.
    data : mapping of str to Path, optional
        Further folders by the names that the configuration gives them; ``data`` always is the repository's.
    options : sequence of str
        Further options of Snakemake.

    Raises
    ------
    RuntimeError
        When the workflow fails, with what it said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (ROOT / "data").mkdir(exist_ok=True)
    for name, place in ({"data": ROOT / "data"} | dict(data or {})).items():
        if not (folder / name).exists():
            (folder / name).symlink_to(place.resolve())
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(dict(tree)))
    command = ["snakemake", "--snakefile", str(ROOT / "workflow/Snakefile"), "--directory", str(folder)]
    command += ["--profile", str(ROOT / "profiles/default"), "--configfile", str(config), *options, "--", *targets]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"the workflow failed in {folder}:\n{result.stdout}{result.stderr}")
    return folder / "results"


def missing_files(tree: Mapping[str, Any]) -> list[str]:
    """Give the HDF5 files of raw data that a configuration names and that are not here; the demo fetches its own."""
    uris = (volume["raw"]["uri"] for volume in tree["volumes"].values())
    files = {uri.partition(".h5/")[0] + ".h5" for uri in uris if ".h5/" in uri}
    return sorted(file for file in files if not (ROOT / file).exists())


def code() -> str:
    """Give a digest of the package's code: what other code gave is not what this code gives."""
    files = sorted((ROOT / "spoco_blocks").rglob("*.py"))
    return jobs.digest(*((path.relative_to(ROOT).as_posix(), path.read_text()) for path in files))


@dataclass(frozen=True)
class Runs:
    """What runs of the workflow gave, by configuration: an interrupted benchmark continues where it stopped.

    Results of other code are run again.

    Attributes
    ----------
    folder : Path
        Holds ``runs.json``, and a folder for each run that is not finished.
    data : mapping of str to Path
        Further folders that configurations name.
    """

    folder: Path
    data: Mapping[str, Path]

    def result(self, name: str, tree: Mapping[str, Any], target: str) -> dict[str, Any]:
        """Give a JSON file of the results; the workflow runs only where it has not before.

        Parameters
        ----------
        name : str
            Whom the run is for; for readers of ``runs.json``.
        tree : mapping
            The configuration.
        target : str
            The file, relative to the results folder.

        Raises
        ------
        SettingsError
            When the configuration is refused.
        """
        key = jobs.digest(jobs.canonical(parse_settings(tree)), target, code())
        path = self.folder / "runs.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        if key not in known:
            print(f"{name} ...", file=sys.stderr, flush=True)
            folder = self.folder / key
            found = run_workflow(folder, tree, f"results/{target}", data=self.data) / target
            known[key] = {"name": name, "code": code(), "result": json.loads(found.read_text())}
            write_atomically(path, json.dumps(known, indent=1) + "\n")
            shutil.rmtree(folder)
        result: dict[str, Any] = known[key]["result"]
        return result
