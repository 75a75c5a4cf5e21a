"""A log of every attempt at a stage: Snakemake and Slurm empty theirs when they start a job again."""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spoco_blocks.engine.lock import this_process

log = logging.getLogger(__name__)

# Bytes on macOS, kilobytes elsewhere.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@contextmanager
def attempt_log(path: Path) -> Iterator[None]:
    """Append what is logged, how it ends, and what it used of processors and memory."""
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
        words = f"{end}\n{_used(time.monotonic() - start)}"
        handler.emit(log.makeRecord(log.name, logging.INFO, "", 0, words, (), None))
        logging.getLogger().removeHandler(handler)
        # A full disk must not hide how the stage ended.
        with suppress(OSError):
            handler.close()


def _used(seconds: float) -> str:
    """Say what this process and those that it started used, up to now."""
    ours, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = ours.ru_utime + ours.ru_stime + theirs.ru_utime + theirs.ru_stime
    largest = max(ours.ru_maxrss, theirs.ru_maxrss) * RSS_UNIT // 2**20
    return f"{seconds:.0f} s, {busy:.0f} s of processors, {largest} MiB in the largest process"
