"""A log of every attempt at a stage: Snakemake and Slurm empty theirs when they start a job again."""

from __future__ import annotations

import logging
import re
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from spoco_blocks.engine.lock import this_process

log = logging.getLogger(__name__)

# Bytes on macOS, kilobytes elsewhere.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Usage:
    """What an attempt used of what it asked for.

    Attributes
    ----------
    seconds : float
        From its begin to its end.
    busy_s, workers : float, int
        Seconds of all processors together; processors that it asked for.
    memory_mb, asked_mb : int
        Memory of the largest process, and what was asked for all of them, in MiB; 0 = as much as there is.
    """

    seconds: float
    busy_s: float
    workers: int
    memory_mb: int
    asked_mb: int

    def __str__(self) -> str:
        asked = f", {self.asked_mb} MiB asked for" if self.asked_mb else ""
        return (
            f"{self.seconds:.1f} s, {self.busy_s:.1f} s of {self.workers} processors, "
            f"{self.memory_mb} MiB in the largest process{asked}"
        )


_USAGE = re.compile(
    r"^([\d.]+) s, ([\d.]+) s of (\d+) processors, (\d+) MiB in the largest process(?:, (\d+) MiB asked for)?$", re.M
)


@contextmanager
def attempt_log(path: Path, workers: int = 1, memory_mb: int | None = None) -> Iterator[None]:
    """Append what is logged, how it ends, and what it used of the processors and the memory that it asked for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logging.getLogger().addHandler(handler)
    start, end = time.monotonic(), "finished"
    handler.emit(log.makeRecord(log.name, logging.INFO, "", 0, f"--- {this_process()} begins", (), None))
    try:
        yield
    except BaseException as error:
        end = f"{type(error).__name__}: {error}"
        raise
    finally:
        words = f"{end}\n{_used(time.monotonic() - start, workers, memory_mb or 0)}"
        handler.emit(log.makeRecord(log.name, logging.INFO, "", 0, words, (), None))
        logging.getLogger().removeHandler(handler)
        # A full disk must not hide how the stage ended.
        with suppress(OSError):
            handler.close()


def usages(path: Path) -> Sequence[Usage]:
    """Read from a log what each attempt used; those that were killed did not say."""
    if not path.exists():
        return []
    lines = _USAGE.findall(path.read_text(errors="replace"))
    return [Usage(float(s), float(busy), int(n), int(used), int(asked or 0)) for s, busy, n, used, asked in lines]


def _used(seconds: float, workers: int, asked_mb: int) -> Usage:
    """Measure this process and those that it started, up to now."""
    ours, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = ours.ru_utime + ours.ru_stime + theirs.ru_utime + theirs.ru_stime
    largest = max(ours.ru_maxrss, theirs.ru_maxrss) * RSS_UNIT // 2**20
    return Usage(seconds, busy, workers, largest, asked_mb)
