"""A stage's small JSON result: what Snakemake sees, and what the next stage trusts."""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from spoco_blocks.errors import LedgerError
from spoco_blocks.settings.jobs import digest

PACKAGES = ("spoco-blocks", "numpy", "numba", "torch", "zarr", "dask", "snakemake")


@dataclass(frozen=True)
class Manifest:
    """What a stage read, wrote and found.

    Attributes
    ----------
    stage : str
        Name of the stage.
    digest : str
        Changes exactly when the stage's result may have: settings, inputs, stage version, and whatever the stage adds
        that they do not decide (the weights of a trained network).
    inputs : dict
        Digests of the manifests that were read, by stage.
    result : dict
        Small findings: counts, percentiles, grids, paths.
    seconds : float
        Wall time, the sum over interrupted attempts excluded.
    finished : str
        When, in UTC.
    machine : dict
        Python, processor count, package versions.
    """

    stage: str
    digest: str
    inputs: dict[str, str] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    finished: str = ""
    machine: dict[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write atomically: a reader sees the whole manifest or none."""
        write_atomically(path, json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest.

        Raises
        ------
        LedgerError
            When it is missing or not a manifest.
        """
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            stage = path.parent.name if path.stem.startswith("shard-") else path.stem
            raise LedgerError(
                f"no manifest at {path}: run the stage that writes it first (snakemake with --until {stage})."
            ) from None
        except (TypeError, ValueError) as error:
            raise LedgerError(f"{path} is not a manifest ({error}); delete it and run its stage again.") from None


class Stopwatch:
    """Turns a stage's findings into its manifest."""

    def __init__(self, stage: str, identity: str, inputs: dict[str, str] | None = None) -> None:
        self.stage, self.identity, self.inputs = stage, identity, inputs or {}
        self._start = time.perf_counter()

    def finish(self, path: Path, result: dict[str, Any], extra: Any = None) -> Manifest:
        """Write the manifest; `extra` enters the digest where identity alone does not decide the result."""
        manifest = Manifest(
            stage=self.stage,
            digest=digest(self.identity, extra),
            inputs=self.inputs,
            result=result,
            seconds=round(time.perf_counter() - self._start, 3),
            finished=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            machine={
                "python": platform.python_version(),
                "processors": os.cpu_count(),
                "packages": {name: version(name) for name in PACKAGES},
            },
        )
        manifest.write(path)
        return manifest


def write_atomically(path: Path, text: str) -> None:
    """Write text so that no reader and no crash ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
