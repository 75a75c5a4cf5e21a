"""``patchworks_pairs.py FOLDER``: count the pairs of two label arrays; prints seconds of processor time, three runs."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from patchworks._merge import _pair_stats

folder = Path(sys.argv[1])
first, second = (np.load(folder / f"{name}.npy") for name in ("first", "second"))
seconds = []
for _ in range(3):
    start = time.process_time()
    pairs, counts, *_ = _pair_stats(first, second)
    seconds.append(time.process_time() - start)
np.save(folder / "pairs.npy", np.column_stack([pairs, counts]))
print(json.dumps(seconds))
