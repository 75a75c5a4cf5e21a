"""The graph of a decision, and the smaller one of clusters that are still to find a neighbour."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.stages.stitch.mapped import Workspace
from spoco_blocks.stages.stitch.tables import Column

Merged = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Graph:
    """Nodes and edges, mapped or in memory; node 0 is the background.

    Attributes
    ----------
    pairs : (m, 2) int64
        Nodes that touch.
    contacts : (m,) int64
        Voxel faces between them.
    apart : (m,) bool
        Whether they must stay apart.
    weights : (n,) int64
        Voxels behind each mean.
    sums : (n, c) float64
        Sums of their embeddings.
    """

    pairs: NDArray[np.int64]
    contacts: NDArray[np.int64]
    apart: NDArray[np.bool_]
    weights: NDArray[np.int64]
    sums: NDArray[np.float64]

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """All of them."""
        return self.pairs, self.contacts, self.apart, self.weights, self.sums


def small_graph(
    graph: Graph, roots: NDArray[Any], merged: Merged, small: int, folder: Path
) -> tuple[NDArray[np.int64], Graph] | None:
    """Give the clusters that are small or touch one that is, as nodes of a graph of their own, in files of a folder.

    Parameters
    ----------
    graph : Graph
        The graph that was decided.
    roots : (n,) int
        The cluster of every node.
    merged : tuple of ndarray, shapes (n,), (n, c), (n,)
        Voxels and sums of the clusters of several nodes, at their roots; voxels are 0 elsewhere.
    small : int
        Clusters with fewer voxels are small.
    folder : Path
        Where the graph lies.

    Returns
    -------
    nodes : (k,) int64
        The root of each cluster, rising; node 0 first.
    graph : Graph
        Of these clusters. None where no cluster is small and touches another.

    Notes
    -----
    Two clusters that are both large are never joined from here on, so their edges are left out.
    """
    n = len(roots)
    voxels, sums, _ = merged
    space = Workspace(folder, roots, *merged, *graph.arrays)
    used, local = space.zeros("used", bool, (n,)), space.zeros("local", roots.dtype, (n,))
    for _, pairs, _ in _small_edges(graph, roots, voxels, small, space):
        used[pairs] = True
    if not any(used[part].any() for part in space.parts(n)):
        return None
    kinds: dict[str, tuple[Any, tuple[int, ...]]]
    kinds = {"nodes": (np.int64, ()), "weights": (np.int64, ()), "sums": (np.float64, sums.shape[1:])}
    nodes, weights, totals = (Column(folder / name, *kind) for name, kind in kinds.items())
    used[0], count = True, 0
    for part in space.parts(n):
        found = np.flatnonzero(used[part]) + part.start
        local[found] = np.arange(count, count + len(found))
        count += len(found)
        nodes.add(found)
        weights.add(np.where(voxels[found] > 0, voxels[found], graph.weights[found]))
        totals.add(np.where(voxels[found, None] > 0, sums[found], graph.sums[found]))
    kinds = {"pairs": (np.int64, (2,)), "contacts": (np.int64, ()), "apart": (np.bool_, ())}
    columns = [Column(folder / name, *kind) for name, kind in kinds.items()]
    for part, pairs, use in _small_edges(graph, roots, voxels, small, space):
        for column, values in zip(
            columns, (local[pairs], graph.contacts[part][use], graph.apart[part][use]), strict=True
        ):
            column.add(values)
    return nodes.array(), Graph(*(column.array() for column in (*columns, weights, totals)))


def _small_edges(
    graph: Graph, roots: NDArray[Any], voxels: NDArray[np.int64], small: int, space: Workspace
) -> Iterator[tuple[slice, NDArray[Any], NDArray[np.bool_]]]:
    """Give, part by part, the clusters at the ends of edges of which one is small, and which edges these are."""
    for part in space.parts(len(graph.pairs)):
        pairs = roots[graph.pairs[part]]
        sizes = np.where(voxels[pairs] > 0, voxels[pairs], graph.weights[pairs])
        use = (pairs[:, 0] != pairs[:, 1]) & (pairs > 0).all(axis=1) & (sizes.min(axis=1) < small)
        yield part, pairs[use], use
