"""Stitching blocks of a crowded phantom beside peers on the same block labels, and a decision on very large tables."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from bench.bandwidth import compare_kernels
from bench.exact import cut_exactly, exact_segments
from bench.frame import Claim, Report, Row
from bench.peers import SCRIPTS, environment, run_script
from bench.phantoms import Phantom, make
from bench.real_embeddings import read_case
from bench.ways import calibrated, cut
from bench.workflow import ROOT
from spoco_blocks.clustering import Context, Modes, segment
from spoco_blocks.clustering.exact import exact_halo
from spoco_blocks.grid import BlockGrid
from spoco_blocks.kernels.contingency import contingency
from spoco_blocks.stages.stitch.islands import BATCH

FOLDER = ROOT / "results/bench/stitch"
# Narrower than most objects, and than what blocks have where nothing is set.
NARROW_HALO = 16
EXACT, NARROW = "ours, exact", f"ours, halo of {NARROW_HALO}"
Labels = NDArray[Any]
# What cellpose 3 needs beside what this project has. The merge of 4 is the same, but it wants a torchvision that fits.
CELLPOSE = (
    "cellpose==3.1.1.3", "dask-image==2026.5.0", "fastremap", "fill-voids", "imagecodecs", "natsort",
    "opencv-python-headless", "roifile", "tqdm",
)  # fmt: skip


def nuclei() -> dict[str, Any]:
    """Give the demo's configuration, of its volume at full resolution (160³) and with one round of training."""
    tree: dict[str, Any] = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    for part in tree["volumes"]["demo"].values():
        part["level"] = 0
    tree["models"]["demo"].pop("pseudo_labels")
    tree["models"]["demo"]["training"]["patch_voxels"] = [32, 56, 56]
    tree["segmentations"]["demo"]["blocks"] = {"shape_voxels": [80, 80, 80]}
    return tree


def small_part(phantom: Phantom) -> Phantom:
    """Give a small part that is full of objects, on which ways load what they need."""
    tiles = BlockGrid(phantom.truth.shape, (32, 32, 32))
    part = max((block.inner.slices for block in tiles), key=lambda tile: int(phantom.foreground[tile].sum()))
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


def cut_all(phantom: Phantom, context: Context, parts: int, folder: Path, method: Modes) -> None:
    """Cut a volume as single reading does, with a halo as usual and a narrow one, and as exact stitching does."""
    folder.mkdir(exist_ok=True)
    cut(phantom, context, parts, folder, method)
    cut(phantom, context, parts, folder / "narrow", method, NARROW_HALO)
    grid = BlockGrid(phantom.truth.shape, tuple(s // parts for s in phantom.truth.shape), (exact_halo(method),) * 3)
    cut_exactly(phantom, context, grid, folder / "exact", method=method, object_distance=method.merging).save()


def stitch_all(folder: Path) -> dict[str, tuple[dict[str, Any], Labels]]:
    """Stitch in every way, each in a process of its own: what it took, and its segments."""
    here, peers = Path(sys.executable), environment("patchworks==3.3.0")
    ways = {
        "ours": (here, "own_stitch.py", "ours"),
        NARROW: (here, "own_stitch.py", "narrow"),
        EXACT: (here, "own_stitch.py", "exact"),
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


def compare(report: Report, name: str, phantom: Phantom, method: Modes, cuts: Sequence[int]) -> None:
    """Cut a volume, stitch it in every way, and hold all against the volume that was never cut."""
    context = calibrated(phantom, method)
    embeddings = phantom.embeddings.astype(np.float32)
    whole = segment(method, embeddings, phantom.foreground, context)
    with tempfile.TemporaryDirectory() as folder:
        # Exact stitching is held against itself in one block.
        one = exact_segments(
            phantom, context, phantom.truth.shape, Path(folder) / "one", method=method, object_distance=method.merging
        )
    report.notes.append(f"{name}: {whole.max()} segments uncut, {one.max()} by exact stitching in one block.")
    for parts in cuts:
        with tempfile.TemporaryDirectory() as root:
            folder = Path(root)
            cut_all(phantom, context, parts, folder, method)
            cut_all(small_part(phantom), context, 2, folder / "small", method)
            results = stitch_all(folder)
        figures = {
            way: held_against(one if way == EXACT else whole, labels, phantom.foreground, took)
            for way, (took, labels) in results.items()
        }
        tell(report, f"{name}, {parts**3} blocks", figures)


def held_against(uncut: Labels, labels: Labels, foreground: Labels, took: dict[str, Any]) -> dict[str, float]:
    """Give the figures of one way."""
    merges, splits = merges_and_splits(uncut, labels)
    return {
        "false merges": merges, "false splits": splits,
        "ARI to the uncut": adjusted_rand_score(uncut[foreground], labels[foreground]),
        "s": statistics.median(took["seconds"]), "peak memory, MiB": took["mib"],
    }  # fmt: skip


def tell(report: Report, name: str, figures: dict[str, dict[str, float]]) -> None:
    """Add rows and claims for one cut."""
    mine, memory = figures.pop("ours"), "peak memory, MiB"
    for peer, theirs in figures.items():
        report.rows += [Row(name, figure, mine[figure], theirs[figure], peer) for figure in mine]
        if peer in (EXACT, NARROW):
            continue
        report.claims.append(Claim(f"{name}: times the speed of {peer}", theirs["s"] / mine["s"], at_least=1))
        report.claims.append(Claim(f"{name}: {memory}, of {peer}'s", mine[memory] / theirs[memory], at_most=1))
    report.claims.append(Claim(f"{name}: false merges", mine["false merges"], at_most=0))
    report.claims.append(Claim(f"{name}: ARI to the uncut", mine["ARI to the uncut"], at_least=0.9995))
    report.claims.append(Claim(f"{name}: ARI to the uncut, {EXACT}", figures[EXACT]["ARI to the uncut"], at_least=1))


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
    cuts = (2, 4) if quick else (2, 4, 8)
    compare(report, f"phantom {side}³", phantom, Modes(), cuts)
    if not quick:
        case = read_case(nuclei(), FOLDER)
        compare(report, "nuclei 160³", Phantom(case.embeddings, case.foreground.astype(np.uint32)), case.modes, cuts)
    compare_kernels(report)
    large(report, *((10**5, 10**4) if quick else (10**7, BATCH)))
    return report
