"""Running the stages of a segmentation: those that nothing happens to in this process, others in one of their own."""

from __future__ import annotations

import copy
import hashlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pipeline import run_stage

from spoco_blocks.engine.frames import DONE, read_frames
from spoco_blocks.engine.layout import Layout, SegmentationResults
from spoco_blocks.grid import Box
from spoco_blocks.settings import jobs, parse_settings
from spoco_blocks.settings.base import Section
from spoco_blocks.volumes import open_volume

STAGES = ("plan", "embed", "calibrate", "cluster", "stitch", "relabel")
ARRAYS = ("embeddings", "foreground", "affinities", "fragments", "segments")


@dataclass(frozen=True)
class Segmenting:
    """One segmentation in a results folder that holds an indexed volume and a model."""

    root: Path
    tree: dict
    name: str
    environment: dict

    @property
    def results(self) -> SegmentationResults:
        return Layout(self.root).segmentation(self.name)

    def job(self, stage: str) -> Section:
        tree = copy.deepcopy(self.tree)
        blocks = {"shape_voxels": [10, 12, 12], "halo_voxels": 4}
        (section,) = tree["segmentations"].values()
        tree["segmentations"] = {self.name: section | {"blocks": blocks}}
        return jobs.segmentation_job(parse_settings(tree), stage, self.name)

    def command(self, stage: str, *arguments: str) -> list[str]:
        job = jobs.canonical(self.job(stage))
        return ["spoco-blocks", stage, job, "--results", str(self.root), "--workers", "2", *arguments]

    def run(self, stage: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = self.command(stage, *arguments)
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)

    def run_from(self, stage: str) -> None:
        """Run a stage and all that follow, in this process."""
        for following in STAGES[STAGES.index(stage) :]:
            run_stage(following, self.job(following), Layout(self.root))

    def run_before(self, stage: str) -> None:
        """Run all stages before one, in this process."""
        for earlier in STAGES[: STAGES.index(stage)]:
            run_stage(earlier, self.job(earlier), Layout(self.root))

    def start(self, stage: str, *arguments: str, step: str | None = None) -> subprocess.Popen[bytes]:
        """Start a stage with a process group of its own, and wait until it, or a step of it, has finished blocks."""
        place = stage if step is None else f"{stage}/{step}"
        before = self.done(place)
        process = subprocess.Popen(
            self.command(stage, *arguments), env=self.environment, start_new_session=True, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        while self.done(place) < before + 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        return process

    def done(self, stage: str) -> int:
        """Count the records of a stage."""
        return sum(self._done(path) for path in self.results.ledger(stage).rglob("shard-0.ledger"))

    def _done(self, path: Path) -> int:
        with path.open("rb") as file:
            file.readline()
            return sum(frame.kind == DONE for frame in read_frames(file))

    def digests(self) -> dict[str, str]:
        """Digest the voxels of every array, and the object table's bytes."""
        return {name: digest(getattr(self.results, name)) for name in ARRAYS}


def digest(path: Path) -> str:
    volume = open_volume(path)
    voxels = np.ascontiguousarray(volume.read(Box.of_shape(volume.meta.shape)))
    return hashlib.sha256(voxels.tobytes()).hexdigest()


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a coordinator and whatever it started, as a node that fails does."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Give the processes that a coordinator started which do not start any others: its workers, and trackers."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    ours = [pid for pid, parent in parents.items() if parent == process.pid]
    return [pid for pid in ours if b"spawn_main" in (Path("/proc") / str(pid) / "cmdline").read_bytes()]
