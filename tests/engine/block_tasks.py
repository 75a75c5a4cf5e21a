"""Block tasks that note what they do in a folder, for every executor: worker processes import them from here."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spoco_blocks.engine.runner import Blocks
from spoco_blocks.errors import VolumeError
from spoco_blocks.grid import BlockGrid


def line_of(count: int, folder: Path) -> Blocks:
    """Give blocks of one voxel in a row."""
    return Blocks(BlockGrid((1, 1, count), (1, 1, 1)), folder / "ledger", "identity")


def lines(folder: Path, pattern: str) -> list[str]:
    return [line for path in sorted(folder.glob(pattern)) for line in path.read_text().splitlines()]


def note(folder: Path, name: str, text: object = "") -> None:
    with (folder / name).open("a") as file:
        file.write(f"{text}\n")


@dataclass(frozen=True)
class Note:
    """Notes each call, and fails where a file says so."""

    folder: Path
    megabytes: int = 1

    def __call__(self, block):
        if (self.folder / f"fail-{block.index}").exists():
            raise ValueError(f"bad data in {block.inner}")
        note(self.folder, f"calls-{block.index}", os.getpid())
        return {"start": np.array(block.inner.start), "square": np.array(block.index**2)}

    def memory_bytes(self, block):
        return self.megabytes * 2**20


@dataclass(frozen=True)
class Empty:
    """Does nothing."""

    def __call__(self, block):
        return {}

    def memory_bytes(self, block):
        return 1


@dataclass(frozen=True)
class Warmed(Note):
    """Notes when it is warmed, and what was noted until then."""

    def warm(self):
        note(self.folder, "warmed", f"{os.getpid()} {len(lines(self.folder, 'calls-*'))}")


@dataclass(frozen=True)
class Slow(Note):
    """Takes its time."""

    seconds: float = 0.2

    def __call__(self, block):
        time.sleep(self.seconds)
        return super().__call__(block)


@dataclass(frozen=True)
class Flaky(Note):
    """Fails at the first attempt at every third block."""

    ours: bool = False

    def __call__(self, block):
        found = super().__call__(block)
        if block.index % 3 == 0 and len(lines(self.folder, f"calls-{block.index}")) == 1:
            raise VolumeError("no such axis") if self.ours else OSError("connection lost")
        return found


@dataclass(frozen=True)
class Killer(Note):
    """Kills a process in the middle of block 3: the one that runs it, or another one."""

    times: int = 1
    victim: int | None = None

    def __call__(self, block):
        if block.index == 3 and len(lines(self.folder, "deaths")) < self.times:
            note(self.folder, "deaths")
            os.kill(self.victim or os.getpid(), signal.SIGKILL)
            time.sleep(60)
        time.sleep(0.05)
        return super().__call__(block)


@dataclass(frozen=True)
class Halves:
    """Notes which process does which half, with which GPU, and when."""

    folder: Path
    finish_seconds: float = 0.0
    fails: int = -1

    def __call__(self, block):
        return self.finish(block, self.feed(block))

    def feed(self, block):
        note(
            self.folder, f"feed-{block.index}", f"{time.time()} {os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}"
        )
        if block.index == self.fails:
            raise VolumeError("no intensities")
        return np.full(1000, block.index)

    def finish(self, block, fed):
        assert (fed == block.index).all()
        time.sleep(self.finish_seconds)
        text = f"{time.time()} {os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}"
        note(self.folder, f"finish-{block.index}", text)
        return {"sum": fed.sum()}

    def memory_bytes(self, block):
        return 100 * 2**20


@dataclass(frozen=True)
class OnGpu(Note):
    """A task that wants a GPU for all of it."""

    uses_gpu = True

    def __call__(self, block):
        note(self.folder, f"gpu-{block.index}", os.environ.get("CUDA_VISIBLE_DEVICES"))
        return super().__call__(block)
