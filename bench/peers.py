"""Peers that this project does not install: each runs a script in an environment of its own, made when it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SCRIPTS = Path(__file__).parent / "scripts"


def environment(*packages: str, on_ours: bool = False) -> Path:
    """Make an environment that holds a peer, or give the one that was made before.

    Parameters
    ----------
    *packages : str
        What to install, with versions.
    on_ours : bool
        Install these alone, and let them find the rest in this project's environment: for peers that want PyTorch.

    Returns
    -------
    Path
        Its interpreter.

    Raises
    ------
    RuntimeError
        When the packages cannot be installed, with what pip said.
    """
    name = "-".join(["bench", *packages, f"py{sys.version_info.major}{sys.version_info.minor}"]).replace("==", "-")
    folder = Path(tempfile.gettempdir()) / name
    python = folder / "bin" / "python"
    ready = folder / ".ready"
    if not ready.exists():
        venv.create(folder, with_pip=True, clear=True)
        if on_ours:
            packages = ("--no-deps", *packages)
            (site_packages,) = folder.glob("lib/python*/site-packages")
            (site_packages / "ours.pth").write_text(str(Path(np.__file__).parents[1]))
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise RuntimeError(f"pip could not install {', '.join(packages)}:\n{result.stderr}")
        ready.touch()
    return python


def run_script(python: Path, script: str, arguments: Sequence[object], folder: Path) -> Any:
    """Run a script of `scripts` and give what it printed last, as JSON.

    Parameters
    ----------
    python : Path
        Interpreter.
    script : str
        Name of the script.
    arguments : sequence
        Its command line.
    folder : Path
        Where it runs, and leaves what it writes.

    Raises
    ------
    RuntimeError
        When it fails, with what it said.
    """
    command = [str(python), str(SCRIPTS / script), *map(str, arguments)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{script} failed:\n{result.stdout}{result.stderr}")
    return json.loads(result.stdout.strip().splitlines()[-1])
