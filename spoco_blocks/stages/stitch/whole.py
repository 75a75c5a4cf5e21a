"""Fragments of a volume as if it had never been cut: tables in, tables out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from spoco_blocks.engine.ledger import Records
from spoco_blocks.stages.stitch.tables import Edges, Fragments, renamed_edges


@dataclass(frozen=True)
class Whole:
    """What the fragments of all blocks are together.

    Attributes
    ----------
    fragments, edges : Fragments, Edges
        Of the volume as one block.
    of_fragment : (m + 1,) int64, or None
        The one that each fragment of a block is a part of; 0 = of none that is large enough. None = itself.
    """

    fragments: Fragments
    edges: Edges
    of_fragment: NDArray[np.int64] | None


def join_blocks(records: Records, fragments: Fragments, edges: Edges, least: int) -> Whole:
    """Join what one piece of the volume is in several blocks.

    Parameters
    ----------
    records : Records
        Of `ClusterExactly`.
    fragments, edges : Fragments, Edges
        Of all blocks.
    least : int
        Smaller fragments that no seed grew to are left out.

    Returns
    -------
    Whole
        Numbered by seeds, and behind them what no seed grew to by its first voxels.

    Notes
    -----
    Sums are of rounded embeddings, which float64 holds exactly, so that they do not depend on the blocks. In memory:
    about 100 bytes and 16 per channel for each fragment, 60 for each edge.
    """
    ids, first = (
        np.concatenate([np.zeros(1, np.int64), *(record[name] for record in records)]) for name in ("ids", "first")
    )
    count = len(ids)
    rest = (ids == 0) & (np.arange(count) > 0)
    across = edges.pairs[~edges.same_block & rest[edges.pairs].all(axis=1)]
    graph = coo_array((np.ones(len(across), np.bool_), np.ascontiguousarray(across).T), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    sizes = np.bincount(component, np.where(rest, fragments.voxels, 0))
    earliest = np.full(len(sizes), np.iinfo(np.int64).max)
    np.minimum.at(earliest, component[rest], first[rest])
    kept = rest & (sizes[component] >= least)
    # Seeds first: their numbers rise by kind and place, and are fewer than all fragments and their first voxels.
    known, place = np.unique(ids, return_inverse=True)
    _, behind = np.unique(earliest[component[kept]], return_inverse=True)
    of_fragment = place.astype(np.int64)
    of_fragment[kept] = len(known) + behind
    total = len(known) + int(behind.max(initial=-1)) + 1
    weights, voxels = np.zeros(total, np.int64), np.zeros(total, np.int64)
    sums = np.zeros((total, fragments.sums.shape[1]))
    for into, values in ((weights, fragments.weights), (voxels, fragments.voxels), (sums, fragments.sums)):
        np.add.at(into, of_fragment, values)
    weights[0], voxels[0], sums[0] = 0, 0, 0
    pairs, faces = renamed_edges(of_fragment, edges.pairs, edges.contacts)
    whole = Fragments(np.array([0, total - 1]), weights, sums, voxels)
    return Whole(whole, Edges(pairs, faces, np.ones(len(pairs), np.bool_)), of_fragment)
