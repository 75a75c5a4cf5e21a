"""Deciding out of core: islands of fragments that could be joined are decided batch by batch, the others stand alone.

Joining the nearest two first is a decision about the whole graph. What happens in one part of it bears on another only
through fragments near enough to be joined. So:

1. Edges whose ends are near enough to be joined make islands of fragments.
2. Islands are decided for themselves, as many at once as a batch holds, by the same kernel as a small volume.
3. Every other edge is checked: could the clusters at its ends, at any time while they grew, have come near enough?
   If so, their islands become one, and that one is decided anew.

What is left when no edge can join is what one decision on everything gives, however it was cut into batches. Tables and
what is known of every fragment are mapped, not read; what is held is one batch. A batch that was decided is on disk: a
run that was killed goes on from there.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.kernels.agglomeration import agglomerate
from spoco_blocks.kernels.islands import assign_batches, balls, could_join, count_members, flatten, unite
from spoco_blocks.stages.stitch.graph import Graph, Merged, small_graph
from spoco_blocks.stages.stitch.mapped import Workspace

log = logging.getLogger(__name__)

# Fragments decided together, about 1 kB each with their edges.
BATCH = 2_000_000


def decide_islands(
    graph: Graph,
    folder: Path,
    *,
    merge_distance: float,
    small_voxels: int,
    small_distance: float,
    batch: int = BATCH,
) -> NDArray[Any]:
    """Do what `agglomerate` does, in memory that does not depend on the number of fragments.

    Parameters
    ----------
    graph : Graph
        The whole volume's.
    folder : Path
        Working folder of this graph and these settings. What is found there of a run that was killed is used.
    merge_distance, small_voxels, small_distance : float, int, float
        See `agglomerate`.
    batch : int
        Fragments decided together; never changes the result.

    Returns
    -------
    (n,) uint32, or int64 where there are too many
        The smallest node of the cluster that each node ended in; in a file of the folder, mapped.

    Raises
    ------
    ResourceError
        When the disk has too little room.

    Notes
    -----
    1 kB is held for each fragment of a batch. An island that is larger than a batch is decided whole: where the
    embeddings of all objects run into each other, memory is that of `agglomerate`. On disk, beside the tables, 38 bytes
    per fragment and 8 for each channel, 8 per edge, and 16 for each fragment that another could join.
    """
    merging = _Deciding.start(graph, folder / f"merge-{batch}")
    merging.link(merge_distance, None, batch)
    roots = merging.roots
    small = small_graph(graph, roots, merging.merged, small_voxels, folder / "small")
    if small is None:
        return roots
    nodes, rest = small
    joining = _Deciding.start(rest, folder / f"small-{batch}")
    joining.link(small_distance, small_voxels, batch)
    space = Workspace(None, roots, nodes, joining.roots)
    for part in space.parts(len(nodes)):
        roots[nodes[part]] = nodes[joining.roots[part]]
    for part in space.parts(len(roots)):
        flatten(roots, part.start, part.stop)
    return roots


@dataclass(frozen=True)
class _Deciding:
    """A graph, and what is known of its nodes so far: all mapped.

    Attributes
    ----------
    graph, folder, space : Graph, Path, Workspace
        Nodes and edges; where arrays and results lie; what lets go of their pages.
    islands, roots : (n,) uint32 or int64
        The island, and the cluster, of every node: their smallest nodes.
    touched : (n,) bool
        Nodes of islands that are to be decided.
    counts, batch : (n,) int
        Nodes of every island, at its smallest node; the batch of every node, -1 = none.
    merged : tuple of ndarray, shapes (n,), (n, c), (n,)
        Voxels, sums and radius of the clusters of several nodes; see `could_join`.
    """

    graph: Graph
    folder: Path
    space: Workspace
    islands: NDArray[Any]
    roots: NDArray[Any]
    touched: NDArray[np.bool_]
    counts: NDArray[Any]
    batch: NDArray[np.int32]
    merged: Merged

    @classmethod
    def start(cls, graph: Graph, folder: Path) -> _Deciding:
        """Let every node stand alone."""
        n, channels = graph.sums.shape
        kind = "uint32" if n < 2**32 else "int64"
        space = Workspace(folder, *graph.arrays)
        islands, roots, counts = (space.zeros(name, kind, (n,)) for name in ("islands", "roots", "counts"))
        touched, batch = space.zeros("touched", bool, (n,)), space.zeros("batch", np.int32, (n,))
        merged = (
            space.zeros("voxels", np.int64, (n,)),
            space.zeros("sums", np.float64, (n, channels)),
            space.zeros("radius", np.float64, (n,)),
        )
        for part in space.parts(n):
            islands[part] = roots[part] = np.arange(part.start, part.stop)
        return cls(graph, folder, space, islands, roots, touched, counts, batch, merged)

    def link(self, bound: float, small: int | None, limit: int) -> None:
        """Join the nearest two, of which one is small, until none are within the bound."""
        for number in range(len(self.roots)):
            united = self.unite(bound, small)
            if not united:
                break
            log.info("round %d of deciding: %d edges join islands", number + 1, united)
            batches, folder = self.assign(limit), self.folder / f"round-{number}"
            _decide_round(self, batches, folder, _solver(bound, small))
            for found in range(batches):
                self.take(folder / f"batch-{found}.npy")

    def unite(self, bound: float, small: int | None) -> int:
        """Join islands between which clusters could ever have joined; give how many edges did."""
        graph, united = self.graph, 0
        limit = int(np.iinfo(np.int64).max) if small is None else small
        weights, sums = np.asarray(graph.weights), np.asarray(graph.sums)
        for part in self.space.parts(len(graph.pairs)):
            pairs = np.asarray(graph.pairs[part])
            joining = could_join(pairs, self.roots, weights, sums, self.merged, bound, limit)
            joining &= graph.contacts[part] > 0
            united += unite(self.islands, pairs, joining, self.touched)
        for part in self.space.parts(len(self.islands)):
            flatten(self.islands, part.start, part.stop)
        return united

    def assign(self, limit: int) -> int:
        """Put the islands that are to be decided into batches; give how many there are."""
        filled = 0, 0
        for part in self.space.parts(len(self.islands)):
            count_members(self.islands, self.touched, self.counts, self.batch, part.start, part.stop)
        for part in self.space.parts(len(self.islands)):
            filled = assign_batches(self.islands, self.counts, self.batch, limit, filled, part.start, part.stop)
        return filled[0] + (filled[1] > 0)

    def take(self, result: Path) -> None:
        """Take over what was decided of a batch."""
        nodes, found = np.load(result)[:, 1:]
        weights, sums = self.space.gather(nodes, self.graph.weights, self.graph.sums)
        merged = balls(np.searchsorted(nodes, found), weights, sums)
        for span in self.space.spans(nodes):
            for array, values in zip((self.roots, *self.merged), (found, *merged), strict=True):
                array[nodes[span]] = values[span]


def _solver(bound: float, small: int | None) -> Callable[..., NDArray[np.int64]]:
    distances = (bound, 0, 1.0) if small is None else (0.0, small, bound)

    def solve(graph: Graph) -> NDArray[np.int64]:
        merge_distance, small_voxels, small_distance = distances
        return agglomerate(
            graph.pairs,
            graph.contacts,
            graph.apart,
            graph.weights,
            graph.sums,
            merge_distance=merge_distance,
            small_voxels=small_voxels,
            small_distance=small_distance,
        )

    return solve


def _decide_round(state: _Deciding, batches: int, folder: Path, solve: Callable[[Graph], NDArray[np.int64]]) -> None:
    """Decide every batch whose result is not on disk; it holds nodes and their roots."""
    edges = folder / "edges"
    results = [folder / f"batch-{number}.npy" for number in range(batches)]
    if all(result.exists() for result in results):
        return
    if not (folder / "sorted").exists():
        shutil.rmtree(edges, ignore_errors=True)
        edges.mkdir(parents=True)
        _sort_edges(state, edges)
        (folder / "sorted").touch()
    for number, result in enumerate(results):
        if result.exists():
            continue
        found = _decide_batch(state, edges / f"{number}.bin", solve)
        # numpy adds .npy to a name that lacks it.
        temporary = result.with_name(f"unfinished-{number}.npy")
        np.save(temporary, found)
        temporary.replace(result)
        log.info("batch %d of %d decided", number + 1, batches)
    shutil.rmtree(edges)


def _decide_batch(state: _Deciding, edges: Path, solve: Callable[[Graph], NDArray[np.int64]]) -> NDArray[np.int64]:
    """Decide on the edges whose numbers a file holds: nodes, and their roots, (2, k)."""
    graph, chosen = state.graph, np.fromfile(edges, np.int64)
    pairs, contacts, apart = state.space.gather(chosen, graph.pairs, graph.contacts, graph.apart)
    nodes, local = np.unique(pairs, return_inverse=True)
    nodes = np.concatenate([[0], nodes])
    weights, sums = state.space.gather(nodes, graph.weights, graph.sums)
    weights[0] = 0
    return np.stack([nodes, nodes[solve(Graph(local.reshape(-1, 2) + 1, contacts, apart, weights, sums))]])


def _sort_edges(state: _Deciding, folder: Path) -> None:
    """Write the numbers of the edges within islands to one file per batch."""
    for part in state.space.parts(len(state.graph.pairs)):
        pairs = np.asarray(state.graph.pairs[part])
        batch = state.batch[pairs[:, 0]]
        inside = np.flatnonzero((batch >= 0) & (state.islands[pairs[:, 0]] == state.islands[pairs[:, 1]]))
        order = inside[np.argsort(batch[inside], kind="stable")]
        numbers, starts = np.unique(batch[order], return_index=True)
        for number, start, stop in zip(numbers, starts, [*starts[1:], len(order)], strict=False):
            with (folder / f"{number}.bin").open("ab") as file:
                (order[start:stop] + part.start).tofile(file)
