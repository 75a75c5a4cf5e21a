"""``cellpose_stitch.py FOLDER NAME``: merge blocks as cellpose does; writes NAME.npy, prints what it took.

Its steps from the labels of a block on, in its order: box the segments, give them ids of their own, keep the faces;
then merge what touches across faces, and look up every voxel. It keeps the blocks in a store in between, here they stay
in memory; and it cuts off halos itself, but not where they are as wide as a block.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cellpose.contrib.distributed_segmentation as merging
import numpy as np
from took import measure


def prepare(folder: Path) -> Callable[[], np.ndarray]:
    """Load the labels of the blocks."""
    facts = json.loads((folder / "facts.json").read_text())
    shape, size, halo = tuple(facts["shape"]), tuple(facts["block_shape"]), facts["halo"]
    indices, crops = merging.get_block_crops(shape, size, halo, None)
    places = [tuple(slice(i * s, (i + 1) * s) for i, s in zip(index, size, strict=True)) for index in indices]
    outer = [np.load(folder / f"outer-{number}.npy") for number in range(len(indices))]

    def stitch() -> np.ndarray:
        """Merge the blocks of the folder."""
        joined, faces, boxes, used = np.zeros(shape, np.uint32), [], [], []
        for index, crop, place, labels in zip(indices, crops, places, outer, strict=True):
            inner = labels[tuple(slice(p.start - c.start, p.stop - c.start) for p, c in zip(place, crop, strict=True))]
            boxes += merging.bounding_boxes_in_global_coordinates(inner, place)
            joined[place], ids = merging.global_segment_ids(inner, index, merging.get_nblocks(shape, size))
            faces.append(merging.block_faces(joined[place]))
            used.append(ids[1:] if ids[0] == 0 else ids)
        ids = np.concatenate(used).astype(int)
        table = merging.determine_merge_relabeling(indices, faces, ids)
        merging.merge_all_boxes(boxes, table[ids])
        for place in places:
            joined[place] = table[joined[place]]
        return joined

    return stitch


measure(prepare)
