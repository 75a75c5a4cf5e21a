"""Ways of stitching that need nothing which this project lacks: its own, and a plain union-find over overlaps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from spoco_blocks.engine.ledger import Records
from spoco_blocks.grid import BlockGrid
from spoco_blocks.kernels.faces import face_contacts
from spoco_blocks.kernels.lookup import apply_lookup
from spoco_blocks.settings.segmentation import StitchingSettings
from spoco_blocks.stages.stitch.decision import decide, number_segments
from spoco_blocks.stages.stitch.tables import load_edges, load_fragments

Labels = NDArray[Any]
IOU = 0.5


@dataclass(frozen=True)
class Cut:
    """A phantom cut into blocks, each clustered for itself: a folder of labels and records."""

    folder: Path
    grid: BlockGrid
    records: Records
    inner: list[Labels]

    @classmethod
    def open(cls, folder: Path) -> Cut:
        """Open a folder that the benchmark filled."""
        facts = json.loads((folder / "facts.json").read_text())
        grid = BlockGrid(tuple(facts["shape"]), tuple(facts["block_shape"]), (facts["halo"],) * 3)
        inner = [np.load(folder / f"inner-{index}.npy") for index in range(len(grid))]
        return cls(folder, grid, Records(folder / "records", "bench", len(grid)), inner)


def ours(blocks: Cut) -> Labels:
    """Load the records, decide, and write every voxel's segment."""
    fragments = load_fragments(blocks.records)
    edges = load_edges(blocks.records, blocks.grid, fragments.offsets, planar=False)
    roots = decide(fragments, edges, StitchingSettings(), final=False, folder=blocks.folder)
    lookup = number_segments(roots, fragments.voxels, 0)
    return relabelled(blocks, lookup, fragments.offsets)


def relabelled(blocks: Cut, lookup: Labels, offsets: NDArray[np.int64]) -> Labels:
    """Look up the fragments of every block."""
    result = np.zeros(blocks.grid.shape, lookup.dtype)
    for block, inner in zip(blocks.grid, blocks.inner, strict=True):
        mine = lookup[offsets[block.index] + 1 : offsets[block.index + 1] + 1]
        result[block.inner.slices] = apply_lookup(inner, np.concatenate([np.zeros(1, mine.dtype), mine]))
    return result


def union_of_overlaps(blocks: Cut) -> Labels:
    """Join what two blocks see in the slab that both hold, where the IoU is above a half: a plain union-find."""
    counts = [int(inner.max(initial=0)) for inner in blocks.inner]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    outer = [np.load(blocks.folder / f"outer-{block.index}.npy") for block in blocks.grid]
    pairs = [np.zeros((0, 2), np.int64)]
    for block in blocks.grid:
        for axis in range(3):
            place = tuple(p + (a == axis) for a, p in enumerate(blocks.grid.position(block.index)))
            if place[axis] == blocks.grid.counts[axis]:
                continue
            other = blocks.grid.block(blocks.grid.index(place))
            shared = block.outer.intersection(other.outer)
            views = [outer[b.index][shared.relative_to(b.outer.start).slices] for b in (block, other)]
            found, both = face_contacts(views[0], views[1])
            sizes = [np.bincount(view.ravel()) for view in views]
            whole = sizes[0][found[:, 0]] + sizes[1][found[:, 1]] - both
            chosen = found[both > IOU * whole].astype(np.int64)
            pairs.append(chosen + np.array([offsets[block.index], offsets[other.index]]))
    edges, n = np.concatenate(pairs), int(offsets[-1]) + 1
    roots = connected_components(coo_array((np.ones(len(edges)), edges.T), shape=(n, n)), directed=False)[1]
    return relabelled(blocks, np.where(np.arange(n) > 0, roots + 1, 0).astype(np.uint32), offsets)
