"""First pass: what fragments grow from, in each block, and which seeds of neighbouring blocks are one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from spoco_blocks.clustering import Modes
from spoco_blocks.clustering.exact import exact_halo, find_seeds, modes_within_reach
from spoco_blocks.engine.layout import SegmentationResults
from spoco_blocks.engine.ledger import Records, Tables
from spoco_blocks.grid import Block, BlockGrid, Box, Triple, triple
from spoco_blocks.kernels.lookup import apply_lookup
from spoco_blocks.kernels.regions import region_statistics
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.plan.stores import store_fits, store_layout
from spoco_blocks.stages.rehearsal import rehearsed_block, rehearsed_embeddings
from spoco_blocks.stages.sources import open_source
from spoco_blocks.stages.stitch.tables import AXES, following, reader
from spoco_blocks.volumes import create_zarr

# Masks, modes, components and what grows, where all voxels are foreground.
SEED_BYTES = 60


def exact_grid(plan: Plan, method: Modes) -> BlockGrid:
    """Give the blocks with a margin beyond which nothing changes what is found in them."""
    margin = exact_halo(method)
    return BlockGrid(plan.shape, plan.block_shape, (0 if plan.planar else margin, margin, margin))


@dataclass(frozen=True)
class FindSeeds:
    """Write the seeds of a block, numbered within it, cores first.

    Attributes
    ----------
    source : Embedded
        Embeddings and foreground.
    method : Modes
        The method.
    thresholds : tuple of (float, float)
        Gradient threshold, and that of objects without a core.
    modes : Path
        All modes of the volume, in its frame.
    seeds : Source
        Where seeds go.
    shape : tuple of int
        The volume's.
    identity : str
        Digest of what found the modes.
    """

    source: Embedded
    method: Modes
    thresholds: tuple[float, float]
    modes: Path
    seeds: Source
    shape: Triple
    identity: str

    def __call__(self, block: Block) -> Tables:
        """Find the seeds of one block."""
        embeddings, foreground = self.source.in_volume(self.source.output.read(block.outer), block.outer.start)
        behind = triple(min(b + 1, end) for b, end in zip(block.inner.stop, self.shape, strict=True))
        modes = _modes(self.modes, self.identity)
        labels, cores = self.find(embeddings, foreground, modes, Box(block.inner.start, behind), block)
        inside = tuple(slice(0, extent) for extent in block.inner.shape)
        present = np.bincount(labels[inside].reshape(-1), minlength=int(labels.max(initial=0)) + 1) > 0
        present[0] = False
        table = np.where(present, np.cumsum(present), 0).astype(np.uint32)
        inner = np.ascontiguousarray(apply_lookup(labels, table)[inside])
        open_source(self.seeds).write(block.inner, inner)
        own = embeddings[:, *block.inner_local.slices]
        count = int(present.sum())
        voxels, sums, *_ = region_statistics(inner, own, count)
        tables: dict[str, NDArray[Any]] = {
            "voxels": voxels[1:],
            "sums": sums[1:],
            "first": first_voxels(inner, count, block.inner, self.shape),
            "cores": np.array([np.count_nonzero(present[: cores + 1])]),
        }
        for axis, name in enumerate(AXES):
            tables[f"{name}0"] = np.take(inner, 0, axis)
            tables[f"{name}1"] = _linked(labels, table, inside, axis)
        return tables

    def find(
        self,
        embeddings: NDArray[np.float32],
        foreground: NDArray[np.bool_],
        modes: NDArray[np.float32],
        kept: Box,
        block: Block,
    ) -> tuple[NDArray[np.uint32], int]:
        """Label the seeds in a part of the outer box."""
        if not foreground.any():
            return np.zeros(kept.shape, np.uint32), 0
        reach = max(self.method.radius, self.method.merging)
        near = modes_within_reach(modes, embeddings, foreground, reach)
        slices = kept.relative_to(block.outer.start).slices
        return find_seeds(self.method, embeddings, foreground, (*self.thresholds, near), slices)

    def warm(self) -> None:
        """Find seeds in something small."""
        block = rehearsed_block()
        embeddings, foreground = rehearsed_embeddings(self.source.output.channels)
        modes = np.array([[0], [4]], np.float32).repeat(len(embeddings), axis=1)
        labels, _ = self.find(embeddings, foreground, modes, block.inner, block)
        region_statistics(apply_lookup(labels, np.arange(99, dtype=np.uint32)), embeddings, 98)

    def memory_bytes(self, block: Block) -> int:
        """The output, embeddings in float32, and work arrays."""
        output = self.source.output
        return output.memory_bytes(block.outer) + block.outer.size * (4 * output.channels + SEED_BYTES)


def _linked(
    labels: NDArray[np.uint32], table: NDArray[np.uint32], inside: tuple[slice, ...], axis: int
) -> NDArray[np.uint32]:
    """Give the seeds of the last plane along an axis where they go on in the plane behind it."""
    extent = inside[axis].stop
    beside = tuple(slice(None) if a == axis else s for a, s in enumerate(inside))
    last = np.take(labels[beside], extent - 1, axis)
    if labels.shape[axis] == extent:
        return np.zeros_like(last)
    return np.where(last == np.take(labels[beside], extent, axis), table[last], np.uint32(0))


def first_voxels(labels: NDArray[np.uint32], count: int, box: Box, shape: Triple) -> NDArray[np.int64]:
    """Give where in the volume, in raster order, the first voxel of each of the labels 1 to `count` of a box lies."""
    _, first = np.unique(labels, return_index=True)
    places = np.stack(np.unravel_index(first[len(first) - count :], labels.shape), axis=1) + np.array(box.start)
    found: NDArray[np.int64] = np.ravel_multi_index(tuple(places.T), shape)
    return found


@lru_cache(maxsize=1)
def _modes(path: Path, identity: str) -> NDArray[np.float32]:
    """Read the modes once per process; `identity` makes sure that they are those of this run."""
    with np.load(path) as data:
        return np.asarray(data["modes"], np.float32)


def create_seed_store(plan: Plan, results: SegmentationResults, ledger: Path) -> None:
    """Create the store of the seeds; one that is there and fits is kept, with what is in it."""
    if not store_fits(results.seeds, "uint32", None, store_layout(plan)):
        shutil.rmtree(ledger, ignore_errors=True)
        create_zarr(results.seeds, dtype="uint32", channels=None, overwrite=True, **store_layout(plan))


@dataclass(frozen=True)
class Numbered:
    """The seeds of a volume.

    Attributes
    ----------
    offsets : (blocks + 1,) int64
        Seeds before each block.
    ids : (m + 1,) int64
        Number in the volume of each seed of a block: 1 to n, cores first, each kind by first voxels; entry 0 is 0.
    cores : int
        How many are cores.
    means : (n + 1, c) float64
        Mean embeddings in the frame of the volume; row 0 is 0.
    """

    offsets: NDArray[np.int64]
    ids: NDArray[np.int64]
    cores: int
    means: NDArray[np.float64]


def number_seeds(records: Records, grid: BlockGrid, *, planar: bool) -> Numbered:
    """Join seeds that go on from block to block, and number them in an order that no cutting changes.

    Notes
    -----
    In memory: about 100 bytes and 16 per channel for each seed of a block.
    """
    read = reader(records, grid)
    counts, parts, pairs = [0], [], [np.zeros((0, 2), np.int64)]
    for block in range(len(grid)):
        record = read(block)
        counts.append(len(record["voxels"]))
        thin = np.arange(counts[-1]) >= record["cores"][0]
        parts.append((record["voxels"], record["sums"], record["first"], thin))
    offsets = np.cumsum(counts)
    for block in range(len(grid)):
        for axis, other in following(grid, block, planar=planar):
            near, far = read(block)[f"{AXES[axis]}1"], read(other)[f"{AXES[axis]}0"]
            both = near > 0
            found = np.stack([near[both] + offsets[block], far[both] + offsets[other]], axis=1).astype(np.int64)
            pairs.append(np.unique(found, axis=0))
    voxels, sums, first, thin = (np.concatenate(part) for part in zip(*parts, strict=True))
    joined = np.concatenate(pairs) - 1
    graph = coo_array((np.ones(len(joined), np.bool_), joined.T), shape=(len(voxels),) * 2)
    count, seed = connected_components(graph, directed=False)
    earliest = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(earliest, seed, first)
    kind = np.zeros(count, np.bool_)
    kind[seed] = thin
    ids = np.empty(count, np.int64)
    ids[np.lexsort((earliest, kind))] = np.arange(1, count + 1)
    ids = np.concatenate([np.zeros(1, np.int64), ids[seed]])
    sizes, totals = np.zeros(count + 1, np.int64), np.zeros((count + 1, sums.shape[1]))
    np.add.at(sizes, ids[1:], voxels)
    np.add.at(totals, ids[1:], sums)
    return Numbered(offsets, ids, int(count - kind.sum()), totals / np.maximum(sizes, 1)[:, None])
