"""``own_stitch.py FOLDER ours|union``: stitch the blocks of a folder; writes WAY.npy, prints what it took."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from took import measure

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.ways import Cut, ours, union_of_overlaps


def prepare(folder: Path) -> Callable[[], np.ndarray]:
    """Load the labels of the blocks, and open their records."""
    blocks, work = Cut.open(folder), {"ours": ours, "union": union_of_overlaps}[sys.argv[2]]
    return lambda: work(blocks)


measure(prepare)
