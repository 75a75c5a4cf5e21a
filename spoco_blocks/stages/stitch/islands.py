"""Deciding out of core: islands of fragments that could be joined are decided batch by batch, the others stand alone.

Joining the nearest two first is a decision about the whole graph. What happens in one part of it bears on another only
through fragments near enough to be joined. So:

1. Edges whose ends are near enough to be joined make islands of fragments.
2. Islands are decided for themselves, as many at once as a batch holds, by the same kernel as a small volume.
3. Every other edge is checked: could the clusters at its ends, at any time while they grew, have come near enough?
   If so, their islands become one, and that one is decided anew.

What is left when no edge can join is what one decision on everything gives, however it was cut into batches. Tables are
mapped, not read; what is held are a few numbers per fragment and one batch. A batch that was decided is on disk: a run
that was killed goes on from there.
"""

from __future__ import annotations

import logging
import mmap
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.kernels.agglomeration import agglomerate
from spoco_blocks.kernels.islands import assign_batches, balls, could_join, flatten, unite

log = logging.getLogger(__name__)

# Edges looked at together.
CHUNK = 2**21
# Fragments decided together, about 1 kB each with their edges.
BATCH = 2_000_000

# Parts after which mapped pages are let go.
LET_GO = 8

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

    def chunks(self) -> Iterator[slice]:
        """Cut the edges into parts that fit in memory; what was mapped for the parts before is let go now and then."""
        for number, start in enumerate(range(0, len(self.pairs), CHUNK)):
            if number % LET_GO == 0:
                let_go(self.pairs, self.contacts, self.apart, self.weights, self.sums)
            yield slice(start, start + CHUNK)


def let_go(*arrays: NDArray[Any]) -> None:
    """Take the pages of mapped files out of this process; they are read again when they are needed.

    Notes
    -----
    The system would do so itself, but only when memory is short, and a batch system may count them before that.
    """
    for array in arrays:
        base: Any = array
        while base is not None and not isinstance(base, mmap.mmap):
            base = getattr(base, "base", None)
        if base is not None:
            base.madvise(mmap.MADV_DONTNEED)


def decide_islands(
    graph: Graph,
    folder: Path,
    *,
    merge_distance: float,
    small_voxels: int,
    small_distance: float,
    batch: int = BATCH,
) -> NDArray[Any]:
    """Do what `agglomerate` does, in memory that depends little on the number of fragments.

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
        The smallest node of the cluster that each node ended in.

    Notes
    -----
    About 20 bytes per fragment are held, and 1 kB for each of a batch. An island that is larger than a batch is
    decided whole: where the embeddings of all objects run into each other, memory is that of `agglomerate`.
    """
    first = _link(graph, folder / f"merge-{batch}", merge_distance, None, batch)
    small = _small_graph(graph, first, small_voxels)
    if small is None:
        return first.roots
    nodes, rest = small
    joined = _link(rest, folder / f"small-{batch}", small_distance, small_voxels, batch)
    roots = first.roots
    roots[nodes[1:]] = nodes[joined.roots[1:]]
    flatten(roots)
    return roots


@dataclass(frozen=True)
class _Linked:
    roots: NDArray[Any]
    merged: Merged


def _link(graph: Graph, folder: Path, bound: float, small: int | None, batch: int) -> _Linked:
    """Join the nearest two, of which one is small, until none are within the bound."""
    n, channels = graph.sums.shape
    kind = np.dtype("uint32" if n < 2**32 else "int64")
    islands, roots = np.arange(n, dtype=kind), np.arange(n, dtype=kind)
    folder.mkdir(parents=True, exist_ok=True)
    # Mapped and mostly empty: only roots of several fragments are ever written.
    merged: Merged = (
        np.lib.format.open_memmap(folder / "voxels.npy", "w+", np.int64, (n,)),
        np.lib.format.open_memmap(folder / "sums.npy", "w+", np.float64, (n, channels)),
        np.lib.format.open_memmap(folder / "radius.npy", "w+", np.float64, (n,)),
    )
    limit = int(np.iinfo(np.int64).max) if small is None else small
    for number in range(n):
        let_go(*merged)
        touched, united = np.zeros(n, bool), 0
        for part in graph.chunks():
            pairs = np.asarray(graph.pairs[part])
            joining = could_join(pairs, roots, np.asarray(graph.weights), np.asarray(graph.sums), merged, bound, limit)
            joining &= graph.contacts[part] > 0
            united += unite(islands, pairs, joining, touched)
        if not united:
            break
        flatten(islands)
        log.info("round %d of deciding: %d edges join islands", number + 1, united)
        place, batches = assign_batches(islands, touched, batch)
        _decide_round(graph, islands, place, batches, folder / f"round-{number}", _solver(bound, small))
        for found in range(batches):
            _apply(graph, folder / f"round-{number}" / f"batch-{found}.npy", roots, merged)
    return _Linked(roots, merged)


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


def _decide_round(
    graph: Graph,
    islands: NDArray[Any],
    place: NDArray[np.int32],
    batches: int,
    folder: Path,
    solve: Callable[[Graph], NDArray[np.int64]],
) -> None:
    """Decide every batch whose result is not on disk; it holds nodes and their roots."""
    edges = folder / "edges"
    results = [folder / f"batch-{number}.npy" for number in range(batches)]
    if all(result.exists() for result in results):
        return
    if not (folder / "sorted").exists():
        shutil.rmtree(edges, ignore_errors=True)
        edges.mkdir(parents=True)
        _sort_edges(graph, islands, place, edges)
        (folder / "sorted").touch()
    for number, result in enumerate(results):
        if result.exists():
            continue
        chosen = np.fromfile(edges / f"{number}.bin", np.int64)
        pairs = np.asarray(graph.pairs[chosen])
        nodes, local = np.unique(pairs, return_inverse=True)
        nodes = np.concatenate([[0], nodes])
        part = Graph(
            local.reshape(-1, 2) + 1,
            graph.contacts[chosen],
            graph.apart[chosen],
            graph.weights[nodes],
            graph.sums[nodes],
        )
        part.weights[0] = 0
        found = np.stack([nodes, nodes[solve(part)]])
        # numpy adds .npy to a name that lacks it.
        temporary = result.with_name(f"unfinished-{number}.npy")
        np.save(temporary, found)
        temporary.replace(result)
        log.info("batch %d of %d decided", number + 1, batches)
    shutil.rmtree(edges)


def _sort_edges(graph: Graph, islands: NDArray[Any], place: NDArray[np.int32], folder: Path) -> None:
    """Write the numbers of the edges within islands to one file per batch."""
    for part in graph.chunks():
        pairs = np.asarray(graph.pairs[part])
        batch = place[pairs[:, 0]]
        inside = np.flatnonzero((batch >= 0) & (islands[pairs[:, 0]] == islands[pairs[:, 1]]))
        order = inside[np.argsort(batch[inside], kind="stable")]
        numbers, starts = np.unique(batch[order], return_index=True)
        for number, start, stop in zip(numbers, starts, [*starts[1:], len(order)], strict=False):
            with (folder / f"{number}.bin").open("ab") as file:
                (order[start:stop] + part.start).tofile(file)


def _apply(graph: Graph, result: Path, roots: NDArray[Any], merged: Merged) -> None:
    """Take over what was decided of a batch."""
    nodes, found = np.load(result)[:, 1:]
    roots[nodes] = found
    local = np.searchsorted(nodes, found)
    for total, part in zip(merged, balls(local, graph.weights[nodes], graph.sums[nodes]), strict=True):
        total[nodes] = part


def _small_graph(graph: Graph, linked: _Linked, small: int) -> tuple[NDArray[np.int64], Graph] | None:
    """Give the clusters that are small or touch one that is, as nodes of a graph of their own; None without any.

    Notes
    -----
    Two clusters that are both large are never joined from here on, so their edges are left out.
    """
    voxels, sums, _ = linked.merged
    parts = []
    for part in graph.chunks():
        pairs = linked.roots[np.asarray(graph.pairs[part])].astype(np.int64)
        sizes = np.where(voxels[pairs] > 0, voxels[pairs], graph.weights[pairs])
        use = (pairs[:, 0] != pairs[:, 1]) & (pairs > 0).all(axis=1) & (sizes.min(axis=1) < small)
        parts.append((pairs[use], np.asarray(graph.contacts[part])[use], np.asarray(graph.apart[part])[use]))
    if not any(len(pairs) for pairs, *_ in parts):
        return None
    pairs, contacts, apart = (np.concatenate(column) for column in zip(*parts, strict=True))
    nodes, local = np.unique(pairs, return_inverse=True)
    nodes = np.concatenate([[0], nodes])
    weights = np.where(voxels[nodes] > 0, voxels[nodes], graph.weights[nodes])
    totals = np.where(voxels[nodes, None] > 0, sums[nodes], graph.sums[nodes])
    return nodes, Graph(local.reshape(-1, 2) + 1, contacts, apart, weights, totals)
