"""Segment a saved block with `modes` and print the memory that it took beside the input, in bytes."""

import json
import resource
import sys
from pathlib import Path

import numpy as np

from spoco_blocks.clustering import Modes, segment

embeddings, foreground = np.load(sys.argv[1]), np.load(sys.argv[2])
# Compiled code and libraries are no part of what a block takes.
part = (slice(0, 32),) * 3
segment(Modes(), np.ascontiguousarray(embeddings[(slice(None), *part)]), np.ascontiguousarray(foreground[part]))
pages = int(Path("/proc/self/statm").read_text().split()[1])
before = pages * resource.getpagesize()
segment(Modes(), embeddings, foreground)
print(json.dumps({"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before}))
