"""Exact stitching of embeddings that are given: all passes on stores of their own, for any blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.phantoms import Phantom
from spoco_blocks.clustering import Context, Modes
from spoco_blocks.clustering.exact import exact_halo
from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.ledger import Records
from spoco_blocks.engine.runner import Blocks, run
from spoco_blocks.grid import BlockGrid, Box, Triple
from spoco_blocks.settings.sections import Source
from spoco_blocks.settings.segmentation import StitchingSettings
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.exact.cluster import ClusterExactly
from spoco_blocks.stages.exact.find import find_pieces
from spoco_blocks.stages.exact.placed import PlacedSeeds
from spoco_blocks.stages.exact.seeds import FindSeeds
from spoco_blocks.stages.output import StoredOutput
from spoco_blocks.stages.stitch.decision import decide, number_segments
from spoco_blocks.stages.stitch.tables import load_edges, load_fragments
from spoco_blocks.stages.stitch.whole import join_blocks
from spoco_blocks.volumes import create_zarr, open_volume


def stored(folder: Path, name: str, array: NDArray[np.generic], chunk: Triple) -> Source:
    """Write an array, and say where."""
    channels = len(array) if array.ndim == 4 else None
    volume = create_zarr(
        str(folder / name), shape=array.shape[-3:], dtype=array.dtype, channels=channels, chunk_shape=chunk,
        voxel_size_nm=(1.0, 1.0, 1.0),
    )  # fmt: skip
    volume.write(Box.of_shape(array.shape[-3:]), array)
    return Source(uri=str(folder / name))


def exact_segments(
    phantom: Phantom,
    context: Context,
    block_shape: Triple,
    folder: Path,
    scale: float | None = None,
    *,
    method: Modes | None = None,
    planar: bool = False,
) -> NDArray[np.unsignedinteger]:
    """Segment a phantom in blocks so that they do not show."""
    method, shape = method or Modes(), phantom.truth.shape
    folder.mkdir(parents=True)
    embeddings = stored(folder, "embeddings", phantom.embeddings, block_shape)
    foreground = stored(folder, "foreground", phantom.foreground.astype(np.uint8) * 255, block_shape)
    seeds, fragments = (
        stored(folder, name, np.zeros(shape, np.uint32), block_shape) for name in ("seeds", "fragments")
    )
    output = StoredOutput(embeddings, foreground, None, len(phantom.embeddings), 0)
    source = Embedded(output, 0.5, None if scale is None else (scale,) * 3)
    np.savez(folder / "modes.npz", modes=context.modes)
    thresholds = (context.gradient_threshold, context.coreless_threshold)
    margin = exact_halo(method)
    grid = BlockGrid(shape, block_shape, (0 if planar else margin, margin, margin))
    task = FindSeeds(source, method, thresholds, folder / "modes.npz", seeds, shape, str(folder))
    find_pieces(task, grid, folder / "pieces", folder / "ledger", str(folder), Execution(), planar=planar)
    placed = PlacedSeeds(seeds, folder / "pieces", grid, str(folder))
    clustering = ClusterExactly(source, method, placed, fragments, None, shape, gaps=False, planar=planar)
    blocks = Blocks(grid, folder / "ledger" / "cluster", str(folder))
    run(clustering, blocks, Execution())
    records = Records(blocks.folder, blocks.record_identity, len(grid))
    tables = load_fragments(records)
    edges, least = load_edges(records, grid, tables.offsets, planar=planar), max(1, method.min_core_voxels)
    whole = join_blocks(records, tables, edges, least)
    roots = decide(whole.fragments, whole.edges, StitchingSettings(), final=False, folder=folder)
    lookup = number_segments(roots, whole.fragments.voxels, 0)[whole.of_fragment]
    result, written = np.zeros(shape, lookup.dtype), open_volume(fragments.uri)
    for block in grid:
        mine = lookup[tables.offsets[block.index] : tables.offsets[block.index + 1] + 1].copy()
        mine[0] = 0
        result[block.inner.slices] = mine[written.read(block.inner)]
    return result
