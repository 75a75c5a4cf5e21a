"""The workflow on a Slurm of its own, and what its ledgers say was done twice."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spoco_blocks.engine.frames import DONE, RUN, STARTED, read_frames
from spoco_blocks.grid import Box
from spoco_blocks.volumes import open_volume

ROOT = Path(__file__).parent.parent.parent
ARRAYS = ("embeddings", "foreground", "affinities", "fragments", "segmentation")
SHARDS, BLOCKS = 2, 32
# How long to wait for what must happen; a machine that does nothing else needs a fifth of it.
PATIENCE_S = 300


def wait_for(what: Callable[[], object], why: str) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {why}"
        time.sleep(0.1)


@dataclass(frozen=True)
class Cluster:
    """A Slurm, and how it is reached."""

    environment: dict[str, str]
    cgroup: bool

    def __call__(self, *command: str) -> str:
        environment = self.environment | {"SLURM_TIME_FORMAT": "%s"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def jobs(self, state: str = "running") -> dict[str, str]:
        """Numbers of jobs, and their rules."""
        lines = self("squeue", "--noheader", f"--states={state}", "--format=%i %k").splitlines()
        return dict(line.split(maxsplit=1) for line in lines)

    def job_of(self, rule: str) -> str:
        """Number of a running job of a rule."""
        return next(number for number, comment in self.jobs().items() if comment.startswith(f"rule_{rule}"))

    def facts(self, job: str) -> dict[str, str]:
        return dict(re.findall(r"(\S+?)=(\S*)", self("scontrol", "show", "job", "--oneliner", job)))

    def clear(self) -> None:
        """End whatever is left of a test."""
        self("scancel", "--me", "--full", "--signal=KILL")
        self("scancel", "--me")
        wait_for(lambda: not self.jobs("running,pending,completing"), "jobs to end")


@dataclass(frozen=True)
class Run:
    """A folder in which Snakemake runs."""

    folder: Path
    config: Path
    environment: dict[str, str]

    @property
    def results(self) -> Path:
        return self.folder / "results/segmentations/balls"

    def locally(self, *arguments: str) -> None:
        done = subprocess.run(
            self._command("--profile", str(ROOT / "profiles/default"), "--cores", "2", *arguments),
            env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Snakemake with the profile that sites use, and what this Slurm differs in."""
        here = Path(__file__).parent
        _, *command = self._command(
            "--profile", str(ROOT / "profiles/slurm"), "--workflow-profile", str(ROOT / "profiles/default"),
            "--slurm-partition-config", str(here / "partitions.yaml"), "--slurm-no-account",
            "--slurm-status-command", "squeue", "--latency-wait", "5", *arguments,
        )  # fmt: skip
        command = [sys.executable, str(here / "impatient.py"), *command]
        log = (self.folder / "snakemake.log").open("a")
        return subprocess.Popen(
            command, env=self.environment, stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    def finish(self, process: subprocess.Popen[str], code: int = 0) -> None:
        assert process.wait(timeout=PATIENCE_S * 2) == code, self.said[-5000:]

    @property
    def said(self) -> str:
        return (self.folder / "snakemake.log").read_text()

    def _command(self, *arguments: str) -> list[str]:
        self.folder.mkdir(exist_ok=True)
        return [
            "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile"), "--directory", str(self.folder),
            "--configfile", str(self.config), *arguments,
        ]  # fmt: skip

    def frames(self, stage: str, shard: int, kind: str) -> list:
        path = self.results / stage / f"shard-{shard}.ledger"
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.readline()
            return [frame for frame in read_frames(file) if frame.kind == kind]

    def done(self, stage: str, shard: int = 0) -> int:
        return len(self.frames(stage, shard, DONE))

    def half_way(self, stage: str, shard: int = 0) -> None:
        """Wait until some blocks of a shard are done, and others are not."""
        wait_for(lambda: self.done(stage, shard) > 2 or "Complete log" in self.said, f"blocks of {stage}")
        assert "Complete log" not in self.said, self.said[-5000:]

    def redone(self, stage: str, shard: int = 0) -> int:
        """Count how often a block was begun that had been begun before."""
        begun = Counter(int(block) for frame in self.frames(stage, shard, STARTED) for block in frame.blocks)
        return sum(times - 1 for times in begun.values())

    def starts(self, stage: str, shard: int = 0) -> int:
        """Count the processes that worked on a shard."""
        return len(self.frames(stage, shard, RUN))

    def digests(self, names: Sequence[str]) -> dict[str, str]:
        """Digest the voxels of arrays, where there are any."""
        stores = {name: self.results / f"{name}.zarr" for name in names}
        return {name: digest(store) for name, store in stores.items() if store.exists()}


def digest(path: Path) -> str:
    volume = open_volume(path)
    voxels = np.ascontiguousarray(volume.read(Box.of_shape(volume.meta.shape)))
    return hashlib.sha256(voxels.tobytes()).hexdigest()
