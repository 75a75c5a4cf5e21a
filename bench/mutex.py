"""The mutex watershed kernel against the bioimage-cpp and mwatershed packages, on generated affinities."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from bench.frame import Claim, Report, Row
from bench.peers import environment, run_script
from bench.phantoms import Variant, make
from spoco_blocks.clustering import Affinities
from spoco_blocks.kernels.embedding_affinities import embedding_affinities
from spoco_blocks.kernels.mutex_grid import mutex_watershed

PEERS = {"bioimage-cpp": "bioimage-cpp==0.10.0", "mwatershed": "mwatershed==0.5.4"}
# Those of the affinity head: direct neighbours, then voxels 3 and 9 apart along each axis.
OFFSETS = np.concatenate([reach * np.eye(3, dtype=np.int64) for reach in (1, 3, 9)])
# Embeddings as far apart as this surely belong to two objects.
DIFFERENT = 4.0
REPEATS = 3

Mask = NDArray[np.bool_]


def compare(report: Report, name: str, affinities: Affinities, mask: Mask, peers: Sequence[str]) -> None:
    """Run ours and the peers in turn on the same affinities; add figures and claims to the report.

    Parameters
    ----------
    report : Report
        Added to.
    name : str
        What the input is called.
    affinities : Affinities
        The input.
    mask : ndarray of bool, shape (z, y, x)
        Voxels that take part.
    peers : sequence of str
        Keys of PEERS; mwatershed has no masks.
    """
    values, offsets, attractive = affinities.values, affinities.offsets, affinities.neighbours
    pythons = {peer: environment(PEERS[peer]) for peer in peers}
    seconds: dict[str, list[float]] = {who: [] for who in ("ours", *peers)}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "affinities.npz"
        np.savez(data, affinities=values, offsets=offsets, attractive=attractive, mask=mask)
        mutex_watershed(values[:, :8, :8, :8], offsets, attractive, mask[:8, :8, :8])  # compiles
        for _ in range(REPEATS):
            start = time.perf_counter()
            labels = mutex_watershed(values, offsets, attractive, mask)
            seconds["ours"].append(time.perf_counter() - start)
            for peer, python in pythons.items():
                seconds[peer].append(run_script(python, "mutex_peer.py", [peer, data], Path(folder))["seconds"])
        found = {peer: np.load(Path(folder) / f"{peer}.npy") for peer in peers}
    speeds = {who: int(mask.sum()) / statistics.median(runs) / 1e6 for who, runs in seconds.items()}
    for peer in peers:
        same = float(adjusted_rand_score(found[peer][mask], labels[mask]))
        report.rows += [
            Row(name, "Mvoxel/s", speeds["ours"], speeds[peer], peer),
            Row(name, "segments", int(labels.max()), len(np.unique(found[peer][mask])), peer),
        ]
        report.claims += [
            Claim(f"{name}: times the speed of {peer}", speeds["ours"] / speeds[peer], at_least=3),
            Claim(f"{name}: adjusted Rand index between ours and {peer}", same, at_least=0.995),
        ]


def run(quick: bool) -> Report:
    """Compare on whole blocks, and under a mask with the peer that has masks."""
    report = Report(
        notes=[
            f"One thread; medians of {REPEATS} runs in turn; the calls alone are timed, not what converts their input.",
            "Ours reads uint8, as the network's output is stored, bioimage-cpp the same values as float32, mwatershed "
            "as float64, with equal strengths set in the order in which the others take them.",
        ]
    )
    sides: list[tuple[int, int]] = [(64, 20)] if quick else [(64, 20), (128, 110)]
    variants: tuple[Variant, ...] = ("easy",) if quick else ("easy", "noisy")
    for side, objects in sides:
        for variant in variants:
            phantom = make((side,) * 3, objects, variant=variant, seed=0)
            values = embedding_affinities(phantom.embeddings, OFFSETS, 0.0, DIFFERENT)
            affinities = Affinities(values, OFFSETS, 3)
            everywhere = np.ones(phantom.truth.shape, bool)
            compare(report, f"{variant} {side}³", affinities, everywhere, list(PEERS))
            compare(report, f"{variant} {side}³, masked", affinities, phantom.foreground, ["bioimage-cpp"])
    return report
