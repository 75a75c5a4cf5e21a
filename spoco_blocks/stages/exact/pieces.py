"""Second pass: how seeds grow in each block, and which of them are pieces of one object or no objects at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.clustering import Modes
from spoco_blocks.clustering.exact import grow_seeds
from spoco_blocks.engine.ledger import Records, Tables
from spoco_blocks.grid import Block, BlockGrid
from spoco_blocks.kernels.agglomeration import agglomerate
from spoco_blocks.kernels.blends import background_behind, owners_by_contacts
from spoco_blocks.kernels.contacts import contacts
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.exact.placed import PlacedSeeds
from spoco_blocks.stages.exact.seeds import SEED_BYTES
from spoco_blocks.stages.measured import keep_inner, outer_planes
from spoco_blocks.stages.rehearsal import rehearsed_block, rehearsed_embeddings
from spoco_blocks.stages.stitch.tables import load_edges, renamed_edges


@dataclass(frozen=True)
class GrowSeeds:
    """Let the seeds of a block grow, and record what is needed to judge them.

    Attributes
    ----------
    source : Embedded
        Embeddings and foreground.
    method : Modes
        The method.
    seeds : PlacedSeeds
        The seeds of the volume.
    """

    source: Embedded
    method: Modes
    seeds: PlacedSeeds

    def __call__(self, block: Block) -> Tables:
        """Grow into one block."""
        labels, ids, cores = self.seeds.read(block.outer)
        embeddings, foreground = self.source.in_volume(self.source.output.read(block.outer), block.outer.start)
        means = np.asarray(self.seeds.table("means")[ids])
        return self.grown(block, embeddings, foreground, labels, ids, cores, means)

    def grown(
        self,
        block: Block,
        embeddings: NDArray[np.float32],
        foreground: NDArray[np.bool_],
        seeds: NDArray[np.uint32],
        ids: NDArray[np.int64],
        cores: int,
        means: NDArray[np.float64],
    ) -> Tables:
        """Grow into a block of which everything is given."""
        padded = grow_seeds(self.method, embeddings, foreground, seeds, cores, means)
        _, inner, kept = keep_inner(np.ascontiguousarray(padded[1:-1, 1:-1, 1:-1]), block)
        pairs, faces = contacts(inner)
        # Those with the border that belong to the inner box, of seeds that may be blends.
        own = np.zeros(padded.shape, np.bool_)
        own[block.inner_local.shifted((1, 1, 1)).slices] = True
        places = np.flatnonzero(own & (padded > cores))
        behind = background_behind(padded, places, embeddings, foreground, self.method.blend_voxels, len(ids))
        tables: dict[str, NDArray[Any]] = {
            "ids": ids[kept], "weights": np.bincount(inner.reshape(-1), minlength=len(kept) + 1)[1:],
            "pairs": pairs, "contacts": faces, "behind": behind[0][kept], "behind_voxels": behind[1][kept],
        }  # fmt: skip
        return tables | outer_planes(inner)

    def warm(self) -> None:
        """Grow in something small."""
        block = rehearsed_block()
        embeddings, foreground = rehearsed_embeddings(self.source.output.channels)
        seeds = np.zeros(foreground.shape, np.uint32)
        seeds[2, 2, 2], seeds[2, 2, 7] = 1, 2
        self.grown(block, embeddings, foreground, seeds, np.arange(3), 1, np.zeros((3, len(embeddings))))

    def memory_bytes(self, block: Block) -> int:
        """The output, embeddings in float32, and work arrays."""
        output = self.source.output
        return output.memory_bytes(block.outer) + block.outer.size * (8 * output.channels + SEED_BYTES)


def decide_pieces(
    records: Records, grid: BlockGrid, method: Modes, means: NDArray[np.float64], cores: int, *, planar: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Decide of what each seed is a piece, and give the means of these pieces.

    Parameters
    ----------
    records : Records
        Of `GrowSeeds`.
    grid : BlockGrid
        Its blocks.
    method : Modes
        The method.
    means : ndarray of float64, shape (n + 1, c)
        Mean embeddings of the seeds.
    cores : int
        How many of the seeds are cores.
    planar : bool
        Whether z counts images.

    Returns
    -------
    pieces : ndarray of int64, shape (n + 1,)
        The first seed of each seed's piece: a blend of two objects belongs to one of them, and cores whose means are
        near are one.
    piece_means : ndarray of float64, shape (n + 1, c)
        Means of the pieces, at their first seeds.
    """
    voxels, behind = np.zeros(len(means), np.int64), np.zeros_like(means)
    behind_voxels, ids = np.zeros(len(means), np.int64), [np.zeros(1, np.int64)]
    for record in records:
        ids.append(record["ids"])
        np.add.at(voxels, record["ids"], record["weights"])
        np.add.at(behind, record["ids"], record["behind"])
        np.add.at(behind_voxels, record["ids"], record["behind_voxels"])
    offsets = np.cumsum([0, *map(len, ids[1:])])
    edges = load_edges(records, grid, offsets, planar=planar)
    pairs, faces = renamed_edges(np.concatenate(ids), edges.pairs, edges.contacts)
    # Cores are not judged: they count as larger than everything.
    sizes = np.where(np.arange(len(voxels)) <= cores, np.iinfo(np.int64).max, voxels)
    judged = (pairs > cores).any(axis=1)
    owners = owners_by_contacts(
        pairs[judged], faces[judged], sizes, means, (behind, behind_voxels), method.blend_voxels
    ).astype(np.int64)
    weights = np.zeros_like(voxels)
    np.add.at(weights, owners, voxels)
    weights[1:] = np.maximum(weights[1:], 1)
    pairs, faces = renamed_edges(owners, pairs, faces)
    roots = agglomerate(
        pairs, faces, np.zeros(len(pairs), np.bool_), weights, means * weights[:, None],
        merge_distance=method.merging, small_voxels=0, small_distance=0.0,
    )  # fmt: skip
    sums, total = np.zeros_like(means), np.bincount(roots, weights, len(means))
    np.add.at(sums, roots, means * weights[:, None])
    return roots[owners], sums / np.maximum(total, 1)[:, None]


def write_pieces(folder: Path, pieces: NDArray[np.int64], means: NDArray[np.float64]) -> None:
    """Write what the blocks of `cluster` read."""
    np.save(folder / "pieces.npy", pieces)
    np.save(folder / "piece_means.npy", means)
