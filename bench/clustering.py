"""`modes` against the hdbscan and scikit-learn packages, on generated blocks of known truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.frame import Claim, Contender, Report, Row, measure
from bench.phantoms import Phantom, make
from spoco_blocks.clustering import Hdbscan, MeanShift, Modes, segment

Labels = NDArray[np.uint32]


def adjusted_rand_index(truth: Labels, labels: Labels) -> float:
    """Compare a segmentation with the truth, by scikit-learn, over the truth's foreground."""
    from sklearn.metrics import adjusted_rand_score

    inside = truth > 0
    return float(adjusted_rand_score(truth[inside], labels[inside]))


def hdbscan_of_all_voxels(phantom: Phantom) -> Labels:
    """Cluster every foreground voxel with the hdbscan package alone; noise becomes background."""
    from hdbscan import HDBSCAN

    inside = phantom.foreground
    vectors = phantom.embeddings[:, inside].T.astype(np.float64)
    found = HDBSCAN(min_cluster_size=100, cluster_selection_epsilon=0.5, core_dist_n_jobs=1).fit_predict(vectors)
    labels = np.zeros(inside.shape, np.uint32)
    labels[inside] = found + 1
    return labels


def mean_shift_of_a_sample(phantom: Phantom, count: int) -> Labels:
    """Run scikit-learn's mean shift on a sample and its own prediction on all foreground voxels."""
    from sklearn.cluster import MeanShift as Estimator

    inside = phantom.foreground
    vectors = phantom.embeddings[:, inside].T.astype(np.float32)
    sample = np.random.default_rng(0).choice(len(vectors), min(count, len(vectors)), replace=False)
    estimator = Estimator(bandwidth=0.5, bin_seeding=True, min_bin_freq=5).fit(vectors[sample])
    labels = np.zeros(inside.shape, np.uint32)
    labels[inside] = estimator.predict(vectors) + 1
    return labels


def compare(
    report: Report, name: str, phantom: Phantom, peers: dict[str, Callable[[], Labels]], repeats: int
) -> dict[str, Any]:
    """Run ours and the peers on a phantom and add their figures to the report."""
    ours = Contender("modes", lambda: segment(Modes(), phantom.embeddings, phantom.foreground))
    ours.run()
    contenders = [ours, *(Contender(peer, run) for peer, run in peers.items())]
    measured = measure(contenders, repeats, warm_up=False)
    scores = {key: adjusted_rand_index(phantom.truth, m.result) for key, m in measured.items()}
    for peer in peers:
        speeds = [phantom.truth.size / measured[key].median / 1e6 for key in ("modes", peer)]
        counts = [len(np.unique(measured[key].result)) - 1 for key in ("modes", peer)]
        report.rows += [
            Row(name, "Mvoxel/s", *speeds, peer),
            Row(name, "adjusted Rand index", scores["modes"], scores[peer], peer),
            Row(name, f"segments (truth: {phantom.objects})", *counts, peer),
        ]
    return {
        "scores": scores,
        "speedup": {peer: measured[peer].median / measured["modes"].median for peer in peers},
        "rate": phantom.truth.size / measured["modes"].median,
    }


def run(quick: bool) -> Report:
    """Compare on one small block, and where time allows on a block of the default size."""
    report = Report(notes=["16 channels of float16; one thread; truth, seeds and settings in bench/phantoms.py"])
    side, objects = (48, 12) if quick else (64, 20)
    samples = 5000 if quick else 20000
    sampled, shifted = f"hdbscan, {samples} samples", f"scikit-learn mean shift, {samples} samples"
    for variant in ("easy", "hard"):
        phantom = make((side,) * 3, objects, variant=variant, seed=0)
        peers: dict[str, Callable[[], Labels]] = {
            sampled: lambda p=phantom: replace(Hdbscan(), max_samples=samples)(p.embeddings, p.foreground),
        }
        if variant == "easy":
            peers[shifted] = lambda p=phantom: mean_shift_of_a_sample(p, samples)
            if not quick:
                peers["hdbscan, all voxels"] = lambda p=phantom: hdbscan_of_all_voxels(p)
        found = compare(report, f"{variant} {side}³", phantom, peers, 3)
        scores = found["scores"]
        for peer, speedup in found["speedup"].items():
            report.claims.append(Claim(f"{variant} {side}³: times the speed of {peer}", speedup, at_least=20))
        best = max(score for key, score in scores.items() if key != "modes")
        report.claims.append(
            Claim(f"{variant} {side}³: ARI of modes less the best peer's", scores["modes"] - best, at_least=0)
        )
        report.claims.append(Claim(f"{variant} {side}³: ARI of modes", scores["modes"], at_least=0.97))
    if not quick:
        _default_block(report, samples)
    return report


def _default_block(report: Report, samples: int) -> None:
    """Compare on blocks of the default shape."""
    for variant in ("easy", "hard"):
        phantom = make((128, 128, 128), 110, variant=variant, seed=0)
        peer = f"hdbscan, {samples} samples"
        run = {peer: lambda p=phantom: replace(Hdbscan(), max_samples=samples)(p.embeddings, p.foreground)}
        found = compare(report, f"{variant} 128³", phantom, run, 3)
        report.claims += [
            Claim(f"{variant} 128³: times the speed of {peer}", found["speedup"][peer], at_least=20),
            Claim(f"{variant} 128³: ARI of modes", found["scores"]["modes"], at_least=0.98),
        ]
