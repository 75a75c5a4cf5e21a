"""Stitching blocks of a crowded phantom beside peers on the same block labels, and a decision on very large tables."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import adjusted_rand_score

from bench.bandwidth import compare_kernels
from bench.frame import Claim, Report, Row
from bench.peers import SCRIPTS, environment, run_script
from bench.phantoms import Phantom, make
from spoco_blocks.clustering import Context, Modes, segment
from spoco_blocks.engine.ledger import Ledger, Records
from spoco_blocks.grid import BlockGrid
from spoco_blocks.kernels.contingency import contingency
from spoco_blocks.kernels.faces import face_contacts
from spoco_blocks.kernels.lookup import apply_lookup
from spoco_blocks.settings.sections import Source
from spoco_blocks.settings.segmentation import StitchingSettings
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.measured import keep_inner, measure
from spoco_blocks.stages.output import StoredOutput
from spoco_blocks.stages.stitch.decision import decide, number_segments
from spoco_blocks.stages.stitch.islands import BATCH
from spoco_blocks.stages.stitch.tables import load_edges, load_fragments

Labels = NDArray[Any]
HALO = 16
REPEATS = 3
IOU = 0.5
SOURCE = Embedded(StoredOutput(Source(uri="-"), Source(uri="-"), None, 16, 0), 0.5, None)


@dataclass(frozen=True)
class Cut:
    """A phantom cut into blocks, each clustered for itself: a folder of labels and records."""

    folder: Path
    grid: BlockGrid
    records: Records
    inner: list[Labels]


def calibrated(phantom: Phantom) -> Context:
    """Decide thresholds and modes on the whole volume, as stage `calibrate` does."""
    method = Modes()
    sample = method.gradient_sample(phantom.embeddings, phantom.foreground)
    threshold = method.gradient_threshold(sample)
    modes, _ = method.seek(phantom.embeddings, phantom.foreground, threshold, 0)
    return Context(threshold, method.coreless_threshold(sample, threshold), modes)


def cut(phantom: Phantom, context: Context, parts: int, folder: Path) -> Cut:
    """Cluster `parts` blocks along each axis, and write what ours and the peers start from."""
    shape = phantom.truth.shape
    grid = BlockGrid(shape, tuple(s // parts for s in shape), (HALO,) * 3)
    joined, inners, firsts = np.zeros(shape, np.uint32), [], []
    with Ledger(folder / "records", "shard-0", "bench") as ledger:
        for block in grid:
            part = phantom.embeddings[(slice(None), *block.outer.slices)].astype(np.float32)
            foreground = phantom.foreground[block.outer.slices]
            labels, inner, _ = keep_inner(Modes()(part, foreground, context), block)
            ledger.commit(block.index, measure(labels, inner, part, foreground.astype(np.uint8), block, SOURCE))
            np.save(folder / f"outer-{block.index}.npy", labels)
            joined[block.inner.slices] = np.where(inner > 0, inner + joined.max(), 0)
            inners.append(inner)
            firsts.append(int(np.ravel_multi_index(block.outer.start, shape)))
    np.save(folder / "inner.npy", joined)
    facts = {"shape": shape, "block_shape": grid.block_shape, "halo": HALO, "first_voxels": firsts}
    (folder / "facts.json").write_text(json.dumps(facts))
    return Cut(folder, grid, Records(folder / "records", "bench", len(grid)), inners)


def ours(blocks: Cut) -> Labels:
    """Load the records, decide, and write every voxel's segment."""
    fragments = load_fragments(blocks.records)
    edges = load_edges(blocks.records, blocks.grid, fragments.offsets, planar=False)
    roots = decide(fragments, edges, StitchingSettings(), final=False, folder=blocks.folder)
    lookup = number_segments(roots, fragments.voxels, 0)
    return relabelled(blocks, lookup, fragments.offsets)


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


def merges_and_splits(whole: Labels, found: Labels) -> tuple[int, int]:
    """Count objects that most of lies in a segment of another, and segments that are a further piece of one object."""
    pairs, counts = contingency(whole, found)
    kept = (pairs > 0).all(axis=1)
    pairs, counts = pairs[kept].astype(np.int64), counts[kept]
    wrong = []
    for side in (0, 1):
        sizes = np.bincount(pairs[:, side], counts)
        mostly = 2 * counts > sizes[pairs[:, side]]
        wrong.append(int(mostly.sum()) - len(np.unique(pairs[mostly, 1 - side])))
    return wrong[0], wrong[1]


def timed(work: Any, blocks: Cut) -> tuple[list[float], Labels]:
    """Run several times."""
    seconds, result = [], np.zeros(0)
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = work(blocks)
        seconds.append(time.perf_counter() - start)
    return seconds, result


def compare(report: Report, phantom: Phantom, parts: int) -> None:
    """Cut a phantom, stitch it in every way, and hold all against the volume that was never cut."""
    context = calibrated(phantom)
    whole = segment(Modes(), phantom.embeddings.astype(np.float32), phantom.foreground, context)
    name = f"{parts**3} blocks"
    with tempfile.TemporaryDirectory() as folder:
        blocks = cut(phantom, context, parts, Path(folder))
        ours(blocks)
        results = {"ours": timed(ours, blocks), "IoU union-find": timed(union_of_overlaps, blocks)}
        patchworks = environment("patchworks==3.3.0")
        for mode in ("touch", "iou"):
            seconds = run_script(patchworks, "patchworks_stitch.py", (folder, mode), Path(folder))
            results[f"patchworks {mode}"] = seconds, np.load(Path(folder) / f"{mode}.npy")
        seconds = run_script(environment("dask-image==2026.5.0"), "dask_image_stitch.py", (folder,), Path(folder))
        results["dask-image"] = seconds, np.load(Path(folder) / "dask-image.npy")
    figures = {}
    for peer, (seconds, labels) in results.items():
        merges, splits = merges_and_splits(whole, labels)
        ari = adjusted_rand_score(whole[phantom.foreground], labels[phantom.foreground])
        figures[peer] = {
            "false merges": merges, "false splits": splits, "ARI to the uncut": ari, "s": statistics.median(seconds),
        }  # fmt: skip
    mine = figures.pop("ours")
    for peer, theirs in figures.items():
        report.rows += [Row(name, figure, mine[figure], theirs[figure], peer) for figure in mine]
        report.claims.append(Claim(f"{name}: times the speed of {peer}", theirs["s"] / mine["s"], at_least=1))
    report.claims.append(Claim(f"{name}: false merges", mine["false merges"], at_most=0))
    report.claims.append(Claim(f"{name}: ARI to the uncut", mine["ARI to the uncut"], at_least=0.9995))


def large(report: Report, fragments: int, batch: int) -> None:
    """Decide on tables on disk, kill a second run in the middle and let it go on."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        made = run_script(Path(sys.executable), "decide.py", ("generate", folder, fragments), folder)
        found = run_script(Path(sys.executable), "decide.py", ("decide", folder, fragments, batch), folder)
        shutil.rmtree(folder / "work")
        command = [sys.executable, str(SCRIPTS / "decide.py"), "decide", str(folder), str(fragments), str(batch)]
        process = subprocess.Popen(command, env=os.environ)
        while process.poll() is None and not list((folder / "work").glob("*/merge-*/round-0/batch-*.npy")):
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        again = run_script(Path(sys.executable), "decide.py", ("decide", folder, fragments, batch), folder)
    name = f"{made['fragments']:.3g} fragments, {made['edges']:.3g} edges"
    report.notes.append(
        f"{name}: {found['seconds']:.0f} s, {found['held_mib']:.0f} MiB held, {found['peak_mib']:.0f} MiB with mapped "
        f"files; killed after its first batch and started again: {again['seconds']:.0f} s."
    )
    report.claims += [
        Claim(f"{name}: MiB held", found["held_mib"], at_most=8192),
        Claim(f"{name}: false merges", found["false_merges"], at_most=0),
        Claim(f"{name}: same result after kill -9", float(found["digest"] == again["digest"]), at_least=1),
    ]


def run(quick: bool) -> Report:
    """Compare stitching and the kernels that voxels pass; decide on 10⁵ or 10⁷ fragments."""
    report = Report(
        notes=[
            "All start from the same labels of blocks with their halo and end with an array of segments. Ours reads "
            "its records, the others the labels; patchworks also writes its result to a store. One thread each.",
            "cellpose's distributed merge is left out: it brings gigabytes of PyTorch for GPUs with it.",
        ]
    )
    side, objects = (64, 60) if quick else (128, 500)
    phantom = make((side,) * 3, objects, variant="easy", seed=0)
    for parts in (2, 4) if quick else (2, 4, 8):
        compare(report, phantom, parts)
    compare_kernels(report)
    large(report, *((10**5, 10**4) if quick else (10**7, BATCH)))
    return report
