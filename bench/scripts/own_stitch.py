"""``own_stitch.py FOLDER ours|union|exact``: stitch the blocks of a folder; writes WAY.npy, prints what it took."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from took import measure

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.ways import Cut, exact, ours, union_of_overlaps

WAYS = {"ours": ours, "union": union_of_overlaps, "exact": exact}


def prepare(folder: Path) -> Callable[[], np.ndarray]:
    """Load the labels of the blocks, and open their records."""
    way = sys.argv[2]
    blocks = Cut.open(folder / "exact" if way == "exact" else folder)
    assert len(blocks.records) == len(blocks.inner)  # opened here, not where time is taken
    return lambda: WAYS[way](blocks)


measure(prepare)
