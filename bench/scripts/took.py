"""What a way of stitching took: seconds of three runs, and the most memory of a further one."""

from __future__ import annotations

import ctypes
import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RUNS = 3


def status_mib(name: str) -> float:
    """Give a value of /proc/self/status; getrusage would give the parent's peak where that had more."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[name].split()[0]) / 1024


def measured(work: Callable[[], Any]) -> Any:
    """Run three times and once more, print ``{"seconds": [...], "mib": ...}``, and give the last result.

    Notes
    -----
    Memory is what is resident at most beside what was before: libraries and the labels of the blocks, which all hold.
    """
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    gc.collect()
    # What the library has freed but not given back would hide what the next run takes.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = status_mib("VmRSS")
    result = work()
    print(json.dumps({"seconds": seconds, "mib": status_mib("VmHWM") - before}))
    return result
