"""``own_stitch.py FOLDER ours|union``: stitch the blocks of a folder; writes WAY.npy, prints what it took."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from took import measured

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.ways import Cut, ours, union_of_overlaps

folder, way = Path(sys.argv[1]), sys.argv[2]
blocks, work = Cut.open(folder), {"ours": ours, "union": union_of_overlaps}[way]
np.save(folder / f"{way}.npy", measured(lambda: work(blocks)))
