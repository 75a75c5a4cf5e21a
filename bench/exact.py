"""Exact stitching of embeddings that are given, in blocks of several shapes and of a shifted grid: is it the same?"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from bench.frame import Claim, Report, Row
from bench.phantoms import Phantom, make
from bench.real_embeddings import CONFIGURATIONS, FOLDER, read_case
from bench.ways import Cut, Labels, calibrated, cut, exact, ours
from bench.workflow import ROOT, missing_files
from spoco_blocks.clustering import Context, Modes
from spoco_blocks.clustering.exact import exact_halo
from spoco_blocks.clustering.modes import OBJECT_DISTANCE
from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.runner import Blocks
from spoco_blocks.engine.runner import run as run_blocks
from spoco_blocks.grid import Block, BlockGrid, Box, Triple, triple
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.exact.cluster import ClusterExactly
from spoco_blocks.stages.exact.find import find_pieces
from spoco_blocks.stages.exact.placed import PlacedSeeds
from spoco_blocks.stages.exact.seeds import FindSeeds
from spoco_blocks.stages.output import StoredOutput
from spoco_blocks.volumes import create_zarr, open_volume

# Blocks that divide the volume, that do not, that are flat, and columns.
SHAPES = ((64, 64, 64), (40, 56, 72), (24, 96, 96), (128, 32, 48))
SHIFTED = (64, 64, 64)
REPEATS = 3


@dataclass(frozen=True)
class ShiftedGrid(BlockGrid):
    """Blocks of which the first along each axis is half as long, so that all others are moved."""

    @property
    def lead(self) -> Triple:
        """How far the first block reaches beyond the volume's start."""
        return triple(b // 2 for b in self.block_shape)

    @property
    def counts(self) -> Triple:
        """Number of blocks along z, y, x."""
        return triple(-(-(s + a) // b) for s, a, b in zip(self.shape, self.lead, self.block_shape, strict=True))

    def block(self, index: int) -> Block:
        """Give one block."""
        first = [p * b - a for p, b, a in zip(self.position(index), self.block_shape, self.lead, strict=True)]
        start = triple(max(0, f) for f in first)
        stop = triple(min(f + b, s) for f, b, s in zip(first, self.block_shape, self.shape, strict=True))
        return Block(index, Box(start, stop), Box(start, stop).grown(self.halo, Box.of_shape(self.shape)))

    def touching(self, box: Box) -> list[int]:
        """Give the numbers of the blocks whose inner boxes share a voxel with a box inside the volume."""
        ranges = [
            range((a + lead) // s, (b - 1 + lead) // s + 1)
            for a, b, s, lead in zip(box.start, box.stop, self.block_shape, self.lead, strict=True)
        ]
        return [self.index(triple(position)) for position in product(*ranges)]


def stored(folder: Path, name: str, array: NDArray[np.generic], chunk: Triple) -> Source:
    """Write an array, and say where."""
    channels = len(array) if array.ndim == 4 else None
    volume = create_zarr(
        str(folder / name), shape=array.shape[-3:], dtype=array.dtype, channels=channels, chunk_shape=chunk,
        voxel_size_nm=(1.0, 1.0, 1.0),
    )  # fmt: skip
    volume.write(Box.of_shape(array.shape[-3:]), array)
    return Source(uri=str(folder / name))


def cut_exactly(
    phantom: Phantom,
    context: Context,
    grid: BlockGrid,
    folder: Path,
    scale: float | None = None,
    *,
    method: Modes,
    object_distance: float = OBJECT_DISTANCE,
    planar: bool = False,
) -> Cut:
    """Cluster the blocks of a grid so that they do not show: all three passes, in a folder that is new."""
    shape, block_shape = phantom.truth.shape, grid.block_shape
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
    task = FindSeeds(source, method, thresholds, folder / "modes.npz", seeds, shape, str(folder))
    find_pieces(task, grid, folder / "pieces", folder / "ledger", str(folder), Execution(), planar=planar)
    placed = PlacedSeeds(seeds, folder / "pieces", grid, str(folder))
    clustering = ClusterExactly(source, method, placed, fragments, None, shape, gaps=False, planar=planar)
    blocks = Blocks(grid, folder / "ledger" / "cluster", str(folder))
    run_blocks(clustering, blocks, Execution())
    written, ledgers = open_volume(fragments.uri), (blocks.folder, blocks.record_identity)
    inner = [written.read(block.inner) for block in grid]
    return Cut(folder, grid, ledgers, inner, object_distance, max(1, method.min_core_voxels))


def exact_segments(
    phantom: Phantom,
    context: Context,
    block_shape: Triple,
    folder: Path,
    scale: float | None = None,
    *,
    method: Modes | None = None,
    object_distance: float = OBJECT_DISTANCE,
    planar: bool = False,
    shifted: bool = False,
) -> Labels:
    """Segment a phantom in blocks so that they do not show."""
    method = method or Modes()
    margin = exact_halo(method)
    halo = (0 if planar else margin, margin, margin)
    grid = (ShiftedGrid if shifted else BlockGrid)(phantom.truth.shape, block_shape, halo)
    blocks = cut_exactly(
        phantom, context, grid, folder, scale, method=method, object_distance=object_distance, planar=planar
    )
    return exact(blocks, planar=planar)


def cases(report: Report, *, quick: bool) -> Iterator[tuple[str, Phantom, Modes]]:
    """Give crowded phantoms, and embeddings of networks that the workflow trained."""
    side, objects = (64, 20) if quick else (128, 110)
    for variant, channels in (("noisy", 8), ("hard", 16)):
        yield f"{variant} {side}³", make((side,) * 3, objects, channels, variant, seed=0), Modes()
    if quick:
        return
    for name in ("nuclei", "neurites"):
        tree = yaml.safe_load((ROOT / CONFIGURATIONS[name]).read_text())
        missing = missing_files(tree)
        if missing:
            report.notes.append(f"{name} is left out: {', '.join(missing)} is not here.")
            continue
        case = read_case(tree, FOLDER / name)
        # No truth is needed: segmentations are held against each other.
        yield name, Phantom(case.embeddings, case.foreground.astype(np.uint32)), case.modes


def run(quick: bool) -> Report:
    """Segment each input as one block, then in blocks of every shape, and compare voxel by voxel."""
    report = Report(notes=["s: processor time in blocks of the first shape, one thread, medians of three in turn."])
    for name, phantom, method in cases(report, quick=quick):
        context, extent = calibrated(phantom, method), phantom.truth.shape
        with tempfile.TemporaryDirectory() as root:
            whole = exact_segments(phantom, context, extent, Path(root) / "whole", method=method)
            for number, (shape, shifted) in enumerate([*((s, False) for s in SHAPES), (SHIFTED, True)]):
                blocks, folder = triple(map(min, shape, extent)), Path(root) / str(number)
                found = exact_segments(phantom, context, blocks, folder, method=method, shifted=shifted)
                text = f"{name}, blocks of {blocks}{', shifted' if shifted else ''}"
                report.claims.append(Claim(f"{text}: differing voxels", int((found != whole).sum()), at_most=0))
                ari = adjusted_rand_score(whole[phantom.foreground], found[phantom.foreground])
                report.claims.append(Claim(f"{text}: ARI to one block", ari, at_least=1))
            if name not in CONFIGURATIONS:
                exactly, once = seconds(phantom, context, Path(root))
                report.rows.append(Row(name, "s", exactly, once, "each block read once"))
        report.notes.append(f"{name}: {int(whole.max())} segments.")
    return report


def seconds(phantom: Phantom, context: Context, folder: Path) -> list[float]:
    """Give the processor time of exact stitching, and of clustering each block once and stitching."""
    shape = triple(map(min, SHAPES[0], phantom.truth.shape))
    taken: tuple[list[float], list[float]] = [], []
    for number in range(REPEATS):
        exactly, once = folder / f"exactly-{number}", folder / f"once-{number}"
        start = time.process_time()
        exact_segments(phantom, context, shape, exactly)
        between = time.process_time()
        cut(phantom, context, phantom.truth.shape[0] // shape[0], once, Modes())
        ours(Cut.open(once))
        taken[0].append(between - start)
        taken[1].append(time.process_time() - between)
    return [statistics.median(each) for each in taken]
