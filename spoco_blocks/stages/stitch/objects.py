"""The table of objects: what is known of fragments, summed over each segment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.stitch.tables import AXES, Fragments


def object_table(fragments: Fragments, lookup: NDArray[np.unsignedinteger[Any]], plan: Plan) -> pa.Table:
    """Sum the fragments of each segment into one row."""
    count = int(lookup.max(initial=0))
    voxels = np.bincount(lookup, fragments.voxels, count + 1)[1:].astype(np.int64)
    start = np.full((count + 1, 3), np.iinfo(np.int64).max)
    stop = np.zeros((count + 1, 3), np.int64)
    filled = fragments.voxels > 0
    np.minimum.at(start, lookup[filled], fragments.start[filled])
    np.maximum.at(stop, lookup[filled], fragments.stop[filled])
    start, stop = start[1:], stop[1:]
    positions = np.stack([np.bincount(lookup, fragments.positions[:, a], count + 1)[1:] for a in range(3)], 1)
    centroid = (positions / np.maximum(voxels, 1)[:, None] + 0.5) * np.array(plan.voxel_size_nm)
    bounded = slice(1, 3) if plan.planar else slice(0, 3)
    touches = (start[:, bounded] == 0).any(1) | (stop[:, bounded] == np.array(plan.shape)[bounded]).any(1)
    columns = {"id": np.arange(1, count + 1, dtype=np.uint64), "voxels": voxels}
    columns |= {f"{AXES[a]}0": start[:, a] for a in range(3)} | {f"{AXES[a]}1": stop[:, a] for a in range(3)}
    columns |= {f"centroid_{AXES[a]}_nm": centroid[:, a] for a in range(3)}
    columns["fragments"] = np.bincount(lookup, minlength=count + 1)[1:]
    return pa.table({**columns, "touches_border": touches})
