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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from bench.bandwidth import compare_kernels
from bench.frame import Claim, Report, Row
from bench.peers import SCRIPTS, environment, run_script
from bench.phantoms import Phantom, make
from spoco_blocks.clustering import Context, Modes, segment
from spoco_blocks.engine.ledger import Ledger
from spoco_blocks.grid import BlockGrid
from spoco_blocks.kernels.contingency import contingency
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.measured import keep_inner, measure
from spoco_blocks.stages.output import StoredOutput
from spoco_blocks.stages.stitch.islands import BATCH

Labels = NDArray[Any]
HALO = 16
# What cellpose 3 needs beside what this project has. The merge of 4 is the same, but it wants a torchvision that fits.
CELLPOSE = (
    "cellpose==3.1.1.3", "dask-image==2026.5.0", "fastremap", "fill-voids", "imagecodecs", "natsort",
    "opencv-python-headless", "roifile", "tqdm",
)  # fmt: skip
SOURCE = Embedded(StoredOutput(Source(uri="-"), Source(uri="-"), None, 16, 0), 0.5, None)


def calibrated(phantom: Phantom) -> Context:
    """Decide thresholds and modes on the whole volume, as stage `calibrate` does."""
    method = Modes()
    sample = method.gradient_sample(phantom.embeddings, phantom.foreground)
    threshold = method.gradient_threshold(sample)
    modes, _ = method.seek(phantom.embeddings, phantom.foreground, threshold, 0)
    return Context(threshold, method.coreless_threshold(sample, threshold), modes)


def cut(phantom: Phantom, context: Context, parts: int, folder: Path) -> None:
    """Cluster `parts` blocks along each axis, and write what ours and the peers start from."""
    shape = phantom.truth.shape
    grid = BlockGrid(shape, tuple(s // parts for s in shape), (HALO,) * 3)
    joined, firsts = np.zeros(shape, np.uint32), []
    folder.mkdir(exist_ok=True)
    with Ledger(folder / "records", "shard-0", "bench") as ledger:
        for block in grid:
            part = phantom.embeddings[(slice(None), *block.outer.slices)].astype(np.float32)
            foreground = phantom.foreground[block.outer.slices]
            labels, inner, _ = keep_inner(Modes()(part, foreground, context), block)
            ledger.commit(block.index, measure(labels, inner, part, foreground.astype(np.uint8), block, SOURCE))
            np.save(folder / f"outer-{block.index}.npy", labels)
            joined[block.inner.slices] = np.where(inner > 0, inner + joined.max(), 0)
            np.save(folder / f"inner-{block.index}.npy", inner)
            firsts.append(int(np.ravel_multi_index(block.outer.start, shape)))
    np.save(folder / "inner.npy", joined)
    facts = {"shape": shape, "block_shape": grid.block_shape, "halo": HALO, "first_voxels": firsts}
    (folder / "facts.json").write_text(json.dumps(facts))


def corner(phantom: Phantom) -> Phantom:
    """Give a small part of a phantom, on which ways load what they need."""
    part = (slice(0, 32),) * 3
    return Phantom(phantom.embeddings[(slice(None), *part)], phantom.truth[part])


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


def stitch_all(folder: Path) -> dict[str, tuple[dict[str, Any], Labels]]:
    """Stitch in every way, each in a process of its own: what it took, and its segments."""
    here, peers = Path(sys.executable), environment("patchworks==3.3.0")
    ways = {
        "ours": (here, "own_stitch.py", "ours"),
        "IoU union-find": (here, "own_stitch.py", "union"),
        "patchworks touch": (peers, "patchworks_stitch.py", "touch"),
        "patchworks iou": (peers, "patchworks_stitch.py", "iou"),
        "dask-image": (environment("dask-image==2026.5.0"), "dask_image_stitch.py", "dask-image"),
        "cellpose": (environment(*CELLPOSE, on_ours=True), "cellpose_stitch.py", "cellpose"),
    }
    return {
        name: (run_script(python, script, (folder, way), folder), np.load(folder / f"{way}.npy"))
        for name, (python, script, way) in ways.items()
    }


def compare(report: Report, phantom: Phantom, parts: int) -> None:
    """Cut a phantom, stitch it in every way, and hold all against the volume that was never cut."""
    context = calibrated(phantom)
    whole = segment(Modes(), phantom.embeddings.astype(np.float32), phantom.foreground, context)
    name = f"{parts**3} blocks"
    with tempfile.TemporaryDirectory() as folder:
        cut(phantom, context, parts, Path(folder))
        cut(corner(phantom), context, 2, Path(folder) / "small")
        results = stitch_all(Path(folder))
    figures = {}
    for way, (took, labels) in results.items():
        merges, splits = merges_and_splits(whole, labels)
        ari = adjusted_rand_score(whole[phantom.foreground], labels[phantom.foreground])
        figures[way] = {
            "false merges": merges, "false splits": splits, "ARI to the uncut": ari,
            "s": statistics.median(took["seconds"]), "peak memory, MiB": took["mib"],
        }  # fmt: skip
    mine = figures.pop("ours")
    for peer, theirs in figures.items():
        report.rows += [Row(name, figure, mine[figure], theirs[figure], peer) for figure in mine]
        report.claims.append(Claim(f"{name}: times the speed of {peer}", theirs["s"] / mine["s"], at_least=1))
        memory = "peak memory, MiB"
        report.claims.append(Claim(f"{name}: {memory}, of {peer}'s", mine[memory] / theirs[memory], at_most=1))
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
        f"{name}: {found['seconds']:.0f} s, {found['processor_seconds']:.0f} s of them computing; at most "
        f"{found['held_mib']:.0f} MiB held, {found['peak_mib']:.0f} MiB resident with mapped files, "
        f"{found['disk_mib']:.0f} MiB on disk; killed after its first batch, started again: {again['seconds']:.0f} s."
    )
    report.claims += [
        Claim(f"{name}: MiB resident, mapped files too", found["peak_mib"], at_most=8192),
        Claim(f"{name}: false merges", found["false_merges"], at_most=0),
        Claim(f"{name}: same result after kill -9", float(found["digest"] == again["digest"]), at_least=1),
    ]


def run(quick: bool) -> Report:
    """Compare stitching and the kernels that voxels pass; decide on 10⁵ or 10⁷ fragments."""
    report = Report(
        notes=[
            "All start from the same labels of blocks with their halo and end with an array of segments. Ours reads "
            "its records, the others the labels; patchworks also writes its result to a store. One thread each, a "
            "process each. Peak memory: resident, beside libraries and the labels of the blocks.",
        ]
    )
    side, objects = (64, 60) if quick else (128, 500)
    phantom = make((side,) * 3, objects, variant="easy", seed=0)
    for parts in (2, 4) if quick else (2, 4, 8):
        compare(report, phantom, parts)
    compare_kernels(report)
    large(report, *((10**5, 10**4) if quick else (10**7, BATCH)))
    return report
