"""`modes` against the hdbscan and scikit-learn packages, on generated blocks of known truth."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from hdbscan import HDBSCAN
from numba import njit
from numpy.typing import NDArray
from skimage.metrics import contingency_table, variation_of_information
from sklearn.cluster import MeanShift
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from bench import real_embeddings
from bench.frame import Claim, Contender, Report, Row, measure
from bench.peers import environment, run_script
from bench.phantoms import Phantom, Variant, make
from bench.shapes import shapes
from spoco_blocks.clustering import Hdbscan, Modes, segment
from spoco_blocks.clustering.centres import nearest_centres, objects
from spoco_blocks.clustering.modes import draw

Labels = NDArray[np.uint32]
Peers = dict[str, tuple[Callable[[Phantom], Labels], float]]
SAMPLES = 20000
VARIANTS: tuple[Variant, ...] = ("easy", "noisy", "hard")


def adjusted_rand_index(truth: Labels, labels: Labels) -> float:
    """Compare a segmentation with the truth, by scikit-learn, over the truth's foreground."""
    inside = truth > 0
    return float(adjusted_rand_score(truth[inside], labels[inside]))


def hdbscan_of_all_voxels(phantom: Phantom) -> Labels:
    """Cluster every foreground voxel with the hdbscan package alone; noise becomes background."""
    inside = phantom.foreground
    vectors = phantom.embeddings[:, inside].T.astype(np.float64)
    found = HDBSCAN(min_cluster_size=100, cluster_selection_epsilon=0.5, core_dist_n_jobs=1).fit_predict(vectors)
    labels = np.zeros(inside.shape, np.uint32)
    labels[inside] = found + 1
    return labels


def hdbscan_of_a_sample(phantom: Phantom, size: int = 20, epsilon: float = 0.5) -> Labels:
    """Cluster a sample with the hdbscan package; every voxel takes the cluster of the nearest mean."""
    method = Hdbscan(max_samples=SAMPLES, min_cluster_size=size, cluster_selection_epsilon=epsilon)
    return method(phantom.embeddings, phantom.foreground)


def mean_shift_of_a_sample(phantom: Phantom) -> Labels:
    """Run scikit-learn's mean shift on a sample and its own prediction on all foreground voxels."""
    inside = phantom.foreground
    vectors = phantom.embeddings[:, inside].T.astype(np.float32)
    sample = np.random.default_rng(0).choice(len(vectors), min(SAMPLES, len(vectors)), replace=False)
    estimator = MeanShift(bandwidth=0.5, bin_seeding=True, min_bin_freq=5).fit(vectors[sample])
    labels = np.zeros(inside.shape, np.uint32)
    labels[inside] = estimator.predict(vectors) + 1
    return labels


def compare(report: Report, name: str, phantom: Phantom, peers: Peers) -> None:
    """Run ours and the peers on a phantom; add figures and claims to the report.

    Parameters
    ----------
    report : Report
        Added to.
    name : str
        What the phantom is called.
    phantom : Phantom
        The input.
    peers : dict of str to (callable, float)
        By name: how a peer labels a phantom, and how many times faster ours is claimed to be.
    """
    ours = Contender("modes", lambda: segment(Modes(), phantom.embeddings, phantom.foreground))
    # Ours compiles once; the peers are compiled when they are installed.
    ours.run()
    contenders = [ours, *(Contender(peer, partial(label, phantom)) for peer, (label, _) in peers.items())]
    # Bounds only libraries that are loaded by now; two threads waiting for a busy core make mean shift 20 times slower.
    with threadpool_limits(1):
        measured = measure(contenders, repeats=3, warm_up=False, clock=time.process_time)
    scores = {key: adjusted_rand_index(phantom.truth, m.result) for key, m in measured.items()}
    for peer, (_, times) in peers.items():
        speeds = [phantom.truth.size / measured[key].median / 1e6 for key in ("modes", peer)]
        counts = [len(np.unique(measured[key].result)) - 1 for key in ("modes", peer)]
        report.rows += [
            Row(name, "Mvoxel/s", speeds[0], speeds[1], peer),
            Row(name, "adjusted Rand index", scores["modes"], scores[peer], peer),
            Row(name, f"segments (truth: {phantom.objects})", counts[0], counts[1], peer),
        ]
        report.claims += [
            Claim(f"{name}: times the speed of {peer}", speeds[0] / speeds[1], at_least=times),
            Claim(f"{name}: ARI of modes less that of {peer}", scores["modes"] - scores[peer], at_least=0),
        ]


def floor_speed(phantom: Phantom) -> float:
    """Give Mvoxel/s of what any method has to do: read the embeddings once, write labels."""
    bits, out = phantom.embeddings.view(np.uint16).reshape(-1), np.empty(phantom.truth.size, np.uint32)
    seconds = measure([Contender("floor", lambda: _read_and_write(bits, out))], clock=time.process_time)["floor"].median
    return phantom.truth.size / seconds / 1e6


@njit
def _read_and_write(values: NDArray[np.uint16], out: NDArray[np.uint32]) -> int:
    total = np.uint32(0)
    for i in range(values.size):
        total ^= values[i]
    out[:] = total
    return total


def alone(report: Report, name: str, phantom: Phantom, *, least: float | None = None) -> None:
    """Add ours without peers: speed, its ratio to the floor, score and number of segments.

    Parameters
    ----------
    report : Report
        Added to.
    name : str
        What the phantom is called.
    phantom : Phantom
        The input.
    least : float or None
        Mvoxel/s that are claimed.
    """
    ours = Contender("modes", lambda: segment(Modes(), phantom.embeddings, phantom.foreground))
    measured = measure([ours], clock=time.process_time)["modes"]
    speed, floor = phantom.truth.size / measured.median / 1e6, floor_speed(phantom)
    score, count = adjusted_rand_index(phantom.truth, measured.result), len(np.unique(measured.result)) - 1
    report.rows += [
        Row(name, "Mvoxel/s", speed, floor, "reading and writing once"),
        Row(name, "adjusted Rand index", score, 1, "truth"),
        Row(name, "segments", count, phantom.objects, "truth"),
    ]
    report.claims += [
        Claim(f"{name}: ARI of modes", score, at_least=0.98),
        Claim(f"{name}: segments per object", count / phantom.objects, at_least=0.95, at_most=1.05),
    ]
    if least is not None:
        # Smaller blocks stay in the cache between the floor's runs.
        report.claims += [
            Claim(f"{name}: Mvoxel/s", speed, at_least=least),
            Claim(f"{name}: times slower than reading and writing once", floor / speed, at_most=15),
        ]


def fast_hdbscan(report: Report, name: str, phantom: Phantom, times: float) -> None:
    """Compare with fast_hdbscan, in its own environment, on a sample; only its fit is timed."""
    python = environment("fast-hdbscan==0.2.2")
    places = np.flatnonzero(phantom.foreground)
    samples = draw(phantom.embeddings, places, SAMPLES, 0)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "samples.npy", samples)
        seconds = run_script(python, "fast_hdbscan_samples.py", ["samples.npy", "labels.npy"], Path(folder))["seconds"]
        found = np.load(Path(folder) / "labels.npy")
    means = np.array([samples[found == k].mean(0) for k in range(found.max() + 1)], np.float32).reshape(-1, 16)
    labels = objects(nearest_centres(phantom.embeddings, phantom.foreground, means), connected=True, min_voxels=20)
    contender = Contender("modes", lambda: segment(Modes(), phantom.embeddings, phantom.foreground))
    ours = measure([contender], clock=time.process_time)["modes"]
    speeds = [phantom.truth.size / s / 1e6 for s in (ours.median, seconds)]
    scores = [adjusted_rand_index(phantom.truth, found) for found in (ours.result, labels)]
    report.rows += [
        Row(name, "Mvoxel/s", speeds[0], speeds[1], "fast_hdbscan, sample"),
        Row(name, "adjusted Rand index", scores[0], scores[1], "fast_hdbscan, sample"),
    ]
    report.claims.append(Claim(f"{name}: times the speed of fast_hdbscan", speeds[0] / speeds[1], at_least=times))


def peak_memory(report: Report, name: str, phantom: Phantom) -> None:
    """Add the bytes per voxel that a process of its own takes beside the input."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "e.npy", phantom.embeddings)
        np.save(Path(folder) / "f.npy", phantom.foreground)
        taken = run_script(Path(sys.executable), "peak_memory.py", ["e.npy", "f.npy"], Path(folder))["bytes"]
    claim = Claim(f"{name}: bytes per voxel beside the input", taken / phantom.truth.size, at_most=30)
    report.claims.append(claim)


def hard_shapes(report: Report, kind: str) -> None:
    """Compare on shapes that are hard to keep with hdbscan's best of twelve settings, chosen by the truth."""
    phantom = shapes(kind, seed=1)
    ours = agreement(phantom, segment(Modes(), phantom.embeddings, phantom.foreground))
    peers = [
        agreement(phantom, hdbscan_of_a_sample(phantom, size, epsilon))
        for size in (10, 20, 50, 100)
        for epsilon in (0.25, 0.5, 1.0)
    ]
    best = max(p[0] for p in peers), min(p[1] for p in peers)
    peer = "hdbscan, best of 12"
    report.rows += [Row(kind, "AP50", ours[0], best[0], peer), Row(kind, "VOI, bits", ours[1], best[1], peer)]
    report.claims += [
        Claim(f"{kind}: AP50 less hdbscan's best", ours[0] - best[0], at_least=0),
        Claim(f"{kind}: VOI less hdbscan's best", ours[1] - best[1], at_most=0),
    ]


def agreement(phantom: Phantom, labels: Labels) -> tuple[float, float]:
    """Give AP50, and the variation of information over the truth's foreground in bits."""
    joint = contingency_table(phantom.truth, labels).toarray()
    union = joint.sum(0) + joint.sum(1)[:, None] - joint
    found = int(((joint / np.maximum(union, 1))[1:, 1:] > 0.5).sum())
    inside = phantom.foreground
    split, merge = variation_of_information(phantom.truth[inside], labels[inside])
    every = phantom.objects + len(np.unique(labels[labels > 0]))
    return found / (every - found), float(split + merge)


def run(quick: bool) -> Report:
    """Compare on small blocks, and where time allows on blocks of the default shape and on embeddings of networks."""
    report = Report(
        notes=[
            "One thread each; 16 channels of float16 unless said; speeds count all voxels of the block, and processor "
            "time, which other work on the machine changes little.",
            f"A sample is {SAMPLES} foreground voxels. After hdbscan on a sample, our own kernel gives every voxel the "
            "cluster of the nearest mean and splits clusters into connected components.",
        ]
    )
    sampled: Peers = {"hdbscan, sample": (hdbscan_of_a_sample, 20)}
    shifted: Peers = {"scikit-learn mean shift, sample": (mean_shift_of_a_sample, 25)}
    # The sample stays as large while the block grows, so the peer's share of the work falls.
    larger: Peers = {"hdbscan, sample": (hdbscan_of_a_sample, 8)}
    complete: Peers = {"hdbscan, all voxels": (hdbscan_of_all_voxels, 100)}
    compare(report, "easy 64³", make((64, 64, 64), 20, variant="easy", seed=0), sampled | shifted)
    side, objects = (40, 8) if quick else (48, 12)
    compare(report, f"easy {side}³", make((side,) * 3, objects, variant="easy", seed=0), complete)
    for kind in ("thin", "branching"):
        hard_shapes(report, kind)
    for side, objects in ((64, 20), (128, 110), (256, 880))[: 1 if quick else 3]:
        for variant in VARIANTS:
            for channels in (8, 16)[side == 256 :]:
                phantom = make((side,) * 3, objects, channels, variant, seed=0)
                least = 10 if side == 256 and variant == "easy" else None
                alone(report, f"{variant} {side}³, {channels} channels", phantom, least=least)
                if channels == 16 and variant == "easy" and side > 64:
                    peak_memory(report, f"{variant} {side}³", phantom)
                if channels == 16 and variant == "easy" and not quick:
                    times = 20 if side == 64 else 8
                    fast_hdbscan(report, f"{variant} {side}³", phantom, times)
                    if side > 64:
                        compare(report, f"{variant} {side}³", phantom, larger)
    if not quick:
        found = real_embeddings.run(quick=False)
        report.rows += found.rows
        report.claims += found.claims
        report.notes += found.notes
    return report
