"""Third pass: the voxels of each piece in a block."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.clustering import Modes
from spoco_blocks.clustering.exact import grow_seeds, refined
from spoco_blocks.engine.ledger import Tables
from spoco_blocks.grid import Block, Box, Triple, triple
from spoco_blocks.kernels.components import equal_components
from spoco_blocks.kernels.gaps import number_gaps
from spoco_blocks.kernels.lookup import apply_lookup
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.exact.placed import PlacedSeeds
from spoco_blocks.stages.exact.seeds import SEED_BYTES, first_voxels
from spoco_blocks.stages.measured import intensities, keep_inner, measure, unsought
from spoco_blocks.stages.output import Output, PredictedOutput
from spoco_blocks.stages.rehearsal import rehearsed_block, rehearsed_embeddings
from spoco_blocks.stages.sources import open_source


@dataclass(frozen=True)
class ClusterExactly:
    """Grow seeds into a block, straighten the borders between pieces, write and measure what is inside.

    Attributes
    ----------
    source : Embedded
        Embeddings and foreground.
    method : Modes
        The method.
    seeds : PlacedSeeds
        The seeds of the volume, and of what each is a piece.
    fragments : Source
        Where fragments go.
    network : PredictedOutput or None
        Whose raw data is measured; None = that of none.
    shape : tuple of int
        The volume's.
    gaps, planar : bool
        Whether to record the background between fragments; whether z counts images.
    """

    source: Embedded
    method: Modes
    seeds: PlacedSeeds
    fragments: Source
    network: PredictedOutput | None
    shape: Triple
    gaps: bool
    planar: bool

    def __call__(self, block: Block) -> Tables:
        """Cluster one block."""
        block = even(block, planar=self.planar)
        inner, numbered, tables = self.clustered(block, self.source.output.read(block.outer))
        open_source(self.fragments).write(block.inner, inner)
        if self.network is not None:
            tables["intensities"] = intensities(numbered, self.network, block)
        return tables

    def clustered(
        self, block: Block, output: Output
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32], dict[str, NDArray[Any]]]:
        """Give the fragments of an `even` block's inner box, without and with gaps, and what is measured of these."""
        seeds, ids, cores = self.seeds.read(block.outer)
        embeddings, foreground = self.source.in_volume(output, block.outer.start)
        means = np.asarray(self.seeds.table("means")[ids])
        padded = grow_seeds(self.method, embeddings, foreground, seeds, cores, means)
        # Of rising numbers, as everywhere: equal distances go to the smaller one.
        pieces, table = np.unique(self.seeds.table("pieces")[ids], return_inverse=True)
        apply_lookup(padded, table.astype(np.uint32), out=padded)
        labels = refined(self.method, embeddings, padded, np.asarray(self.seeds.table("piece_means")[pieces]))
        return self.measured(block, labels, embeddings, output, foreground, pieces)

    def measured(
        self,
        block: Block,
        labels: NDArray[np.uint32],
        embeddings: NDArray[np.float32],
        output: Output,
        foreground: NDArray[np.bool_],
        pieces: NDArray[np.int64],
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32], dict[str, NDArray[Any]]]:
        """Number and measure what is labelled in the inner box."""
        inside = block.inner_local.slices
        _, inner, kept = keep_inner(labels, block)
        rest, _ = equal_components((foreground[inside] & (inner == 0)).astype(np.int32))
        inner = np.where(rest > 0, rest + np.uint32(len(kept)), inner)
        count = int(inner.max(initial=0))
        ids = np.concatenate([pieces[kept], np.zeros(count - len(kept), np.int64)])
        cores = int(self.seeds.table("cores"))
        tables: dict[str, NDArray[Any]] = {
            "ids": ids,
            "first": first_voxels(inner, count, block.inner, self.shape),
            "coreless": (ids == 0) | (ids > cores),
        }
        within = Block(block.index, block.inner, block.inner)
        numbered = inner
        if self.gaps:
            numbered = number_gaps(inner, planar=self.planar)
            tables["unsought"] = unsought(numbered, output.foreground[inside])
        own, probability = np.ascontiguousarray(embeddings[:, *inside]), np.ascontiguousarray(output.foreground[inside])
        in_volume = replace(self.source, coordinate_scale=None)
        tables |= measure(inner, numbered, own, probability, within, in_volume)
        return inner, numbered, tables

    def warm(self) -> None:
        """Cluster something small."""
        block = rehearsed_block()
        embeddings, foreground = rehearsed_embeddings(self.source.output.channels)
        seeds = np.zeros(foreground.shape, np.uint32)
        seeds[2, 2, 2], seeds[2, 2, 7] = 1, 2
        means = np.zeros((3, len(embeddings)))
        labels = refined(
            self.method, embeddings, grow_seeds(self.method, embeddings, foreground, seeds, 1, means), means
        )
        _, inner, _ = keep_inner(labels, block)
        equal_components(inner.astype(np.int32))
        numbered = number_gaps(inner, planar=self.planar) if self.gaps else inner
        own, within = np.ascontiguousarray(embeddings[:, *block.inner_local.slices]), Block(0, block.inner, block.inner)
        probability = np.ones(inner.shape, np.uint8)
        measure(inner, numbered, own, probability, within, self.source)

    def memory_bytes(self, block: Block) -> int:
        """The output, embeddings in float32, and work arrays."""
        output = self.source.output
        return output.memory_bytes(block.outer) + block.outer.size * (8 * output.channels + SEED_BYTES)


def even(block: Block, *, planar: bool) -> Block:
    """Give the block with an outer box that starts at an even z + y + x: one voxel more where it does not.

    Notes
    -----
    Of images, at an even y + x: there is no voxel to add before an image.
    """
    start = list(block.outer.start)
    axes = (2, 1) if planar else (2, 1, 0)
    if sum(start[axis] for axis in axes) % 2:
        start[next(axis for axis in axes if start[axis] > 0)] -= 1
    return Block(block.index, block.inner, Box(triple(start), block.outer.stop))
