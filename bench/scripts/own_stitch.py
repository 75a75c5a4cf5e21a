"""``own_stitch.py FOLDER WAY``: stitch blocks of a folder in one of our ways; writes WAY.npy, prints what it took."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from took import measure

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.ways import Cut, exact, ours, union_of_overlaps

# The folder of each, and what it does.
WAYS = {"ours": (".", ours), "union": (".", union_of_overlaps), "exact": ("exact", exact), "narrow": ("narrow", ours)}


def prepare(folder: Path) -> Callable[[], np.ndarray]:
    """Load the labels of the blocks, and open their records."""
    where, work = WAYS[sys.argv[2]]
    blocks = Cut.open(folder / where)
    assert len(blocks.records) == len(blocks.inner)  # opened here, not where time is taken
    return lambda: work(blocks)


measure(prepare)
