"""Segment a saved block with `modes` and print the memory that it took beside the input, in bytes."""

import json
import sys
from pathlib import Path

import numpy as np

from spoco_blocks.clustering import Modes, segment

embeddings, foreground = np.load(sys.argv[1]), np.load(sys.argv[2])
# Compiled code and libraries are no part of what a block takes.
part = (slice(0, 32),) * 3
segment(Modes(), np.ascontiguousarray(embeddings[(slice(None), *part)]), np.ascontiguousarray(foreground[part]))


def status_bytes(name: str) -> int:
    """Give a value of /proc/self/status; getrusage would give the parent's peak where that had more."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[name].split()[0]) * 1024


before = status_bytes("VmRSS")
segment(Modes(), embeddings, foreground)
print(json.dumps({"bytes": status_bytes("VmHWM") - before}))
