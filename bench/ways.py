"""Cutting a volume into blocks, and ways of stitching them that need nothing else: ours, and a plain union-find."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bench.phantoms import Phantom
from spoco_blocks.clustering import Context, Modes
from spoco_blocks.engine.ledger import Ledger, Records
from spoco_blocks.grid import BlockGrid
from spoco_blocks.kernels.faces import face_contacts
from spoco_blocks.kernels.lookup import apply_lookup
from spoco_blocks.settings.sections import Source
from spoco_blocks.settings.segmentation import BlockSettings, StitchingSettings
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.measured import keep_inner, measure, on_lattice
from spoco_blocks.stages.output import StoredOutput
from spoco_blocks.stages.stitch.decision import decide, number_segments
from spoco_blocks.stages.stitch.tables import Edges, Fragments, load_edges, load_fragments
from spoco_blocks.stages.stitch.whole import join_blocks

Labels = NDArray[Any]
HALO = BlockSettings().halo_voxels
IOU = 0.5
SOURCE = Embedded(StoredOutput(Source(uri="-"), Source(uri="-"), None, 16, 0), 0.5, None)


def calibrated(phantom: Phantom, method: Modes) -> Context:
    """Decide thresholds and modes on the whole volume, as stage `calibrate` does."""
    sample = method.gradient_sample(phantom.embeddings, phantom.foreground)
    threshold = method.gradient_threshold(sample)
    modes, _ = method.seek(phantom.embeddings, phantom.foreground, threshold, 0)
    return Context(threshold, method.coreless_threshold(sample, threshold), modes)


@dataclass(frozen=True)
class Cut:
    """A volume cut into blocks that were clustered.

    Attributes
    ----------
    folder : Path
        Where it is kept.
    grid : BlockGrid
        The blocks.
    ledgers : tuple of (Path, str)
        Folder and identity of their records.
    inner : list of ndarray
        Labels of each block.
    object_distance : float
        How far embeddings of one object lie apart.
    least : int
        Of exact stitching: the smallest fragment that no seed grew to.
    """

    folder: Path
    grid: BlockGrid
    ledgers: tuple[Path, str]
    inner: list[Labels]
    object_distance: float
    least: int

    @classmethod
    def open(cls, folder: Path) -> Cut:
        """Open a folder that the benchmark filled."""
        facts = json.loads((folder / "facts.json").read_text())
        grid = BlockGrid(tuple(facts["shape"]), tuple(facts["block_shape"]), (facts["halo"],) * 3)
        inner = [np.load(folder / f"inner-{index}.npy") for index in range(len(grid))]
        ledgers, identity = facts["ledgers"]
        return cls(folder, grid, (Path(ledgers), identity), inner, facts["object_distance"], facts["least"])

    @cached_property
    def records(self) -> Records:
        """What is recorded of each block."""
        return Records(*self.ledgers, len(self.grid))

    def save(self) -> None:
        """Write what `open` reads, and what the peers need to know."""
        for block, inner in zip(self.grid, self.inner, strict=True):
            np.save(self.folder / f"inner-{block.index}.npy", inner)
        facts = {
            "shape": self.grid.shape, "block_shape": self.grid.block_shape, "halo": self.grid.halo[2],
            "ledgers": [str(self.ledgers[0]), self.ledgers[1]], "object_distance": self.object_distance,
            "least": self.least,
            "first_voxels": [int(np.ravel_multi_index(b.outer.start, self.grid.shape)) for b in self.grid],
        }  # fmt: skip
        (self.folder / "facts.json").write_text(json.dumps(facts))


def cut(phantom: Phantom, context: Context, parts: int, folder: Path, method: Modes, halo: int = HALO) -> None:
    """Cluster `parts` blocks along each axis, and write what ours and the peers start from."""
    shape = phantom.truth.shape
    grid, joined, kept = BlockGrid(shape, tuple(s // parts for s in shape), (halo,) * 3), np.zeros(shape, np.uint32), []
    folder.mkdir(exist_ok=True)
    with Ledger(folder / "records", "shard-0", "bench") as ledger:
        for block in grid:
            part = phantom.embeddings[(slice(None), *block.outer.slices)].astype(np.float32)
            foreground = phantom.foreground[block.outer.slices]
            labels, inner, _ = keep_inner(method(part, foreground, context), block)
            tables = measure(labels, inner, part, foreground.astype(np.uint8), block, SOURCE)
            ledger.commit(block.index, tables | {"lattice": on_lattice(labels, block, planar=False)})
            np.save(folder / f"outer-{block.index}.npy", labels)
            joined[block.inner.slices] = np.where(inner > 0, inner + joined.max(), 0)
            kept.append(inner)
    np.save(folder / "inner.npy", joined)
    least = max(1, method.min_core_voxels)
    Cut(folder, grid, (folder / "records", "bench"), kept, method.merging, least).save()


def ours(blocks: Cut) -> Labels:
    """Load the records, decide, and write every voxel's segment."""
    fragments = load_fragments(blocks.records)
    edges = load_edges(blocks.records, blocks.grid, fragments.offsets, planar=False)
    return relabelled(blocks, _ids(blocks, fragments, edges), fragments.offsets)


def exact(blocks: Cut, *, planar: bool = False) -> Labels:
    """Do the same with records of exact stitching."""
    fragments = load_fragments(blocks.records)
    edges = load_edges(blocks.records, blocks.grid, fragments.offsets, planar=planar)
    whole = join_blocks(blocks.records, fragments, edges, blocks.least)
    return relabelled(blocks, _ids(blocks, whole.fragments, whole.edges)[whole.of_fragment], fragments.offsets)


def _ids(blocks: Cut, fragments: Fragments, edges: Edges) -> Labels:
    roots = decide(
        fragments, edges, StitchingSettings(), final=False, folder=blocks.folder,
        object_distance=blocks.object_distance,
    )  # fmt: skip
    return number_segments(roots, fragments.voxels, 0)


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
