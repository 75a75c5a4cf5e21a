"""What a way of stitching took: seconds of three runs, and their most memory."""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RUNS = 3


def status_mib(name: str) -> float:
    """Give a value of /proc/self/status; getrusage would give the parent's peak where that had more."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[name].split()[0]) / 1024


def measure(prepare: Callable[[Path], Callable[[], Any]]) -> None:
    """Run three times on the folder of the command line, and print ``{"seconds": [...], "mib": ...}``.

    Parameters
    ----------
    prepare : callable
        Loads the labels of a folder, and gives what stitches them. The second argument of the command line names the
        file that its result is written to.

    Notes
    -----
    Memory is what is resident at most beside what was before: libraries, what a run on a small volume loaded and kept,
    and the labels of the blocks, which all hold.
    """
    folder = Path(sys.argv[1])
    prepare(folder / "small")()
    work, seconds, result = prepare(folder), [], None
    gc.collect()
    # What the library has freed but not given back would hide what a run takes.
    ctypes.CDLL(None).malloc_trim(0)
    before = status_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(RUNS):
        result = None
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    mib = status_mib("VmHWM") - before
    np.save(folder / f"{sys.argv[2]}.npy", result)
    print(json.dumps({"seconds": seconds, "mib": mib}))
