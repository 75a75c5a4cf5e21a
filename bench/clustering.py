"""`modes` against the hdbscan and scikit-learn packages, on generated blocks of known truth."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from hdbscan import HDBSCAN
from numpy.typing import NDArray
from sklearn.cluster import MeanShift
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from bench.frame import Claim, Contender, Report, Row, measure
from bench.phantoms import Phantom, make
from spoco_blocks.clustering import Hdbscan, Modes, segment

Labels = NDArray[np.uint32]
Peers = dict[str, tuple[Callable[[Phantom], Labels], float]]
SAMPLES = 20000


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


def hdbscan_of_a_sample(phantom: Phantom) -> Labels:
    """Cluster a sample with the hdbscan package; every voxel takes the cluster of the nearest mean."""
    return Hdbscan(max_samples=SAMPLES)(phantom.embeddings, phantom.foreground)


def mean_shift_of_a_sample(phantom: Phantom) -> Labels:
    """Run scikit-learn's mean shift on a sample and its own prediction on all foreground voxels."""
    inside = phantom.foreground
    vectors = phantom.embeddings[:, inside].T.astype(np.float32)
    sample = np.random.default_rng(0).choice(len(vectors), min(SAMPLES, len(vectors)), replace=False)
    estimator = MeanShift(bandwidth=0.5, bin_seeding=True, min_bin_freq=5).fit(vectors[sample])
    labels = np.zeros(inside.shape, np.uint32)
    labels[inside] = estimator.predict(vectors) + 1
    return labels


def compare(report: Report, name: str, phantom: Phantom, peers: Peers, ari: float | None) -> None:
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
    ari : float or None
        Adjusted Rand index that ours is claimed to reach; None on blocks that are too small for a claim.
    """
    ours = Contender("modes", lambda: segment(Modes(), phantom.embeddings, phantom.foreground))
    # Ours compiles once; the peers are compiled when they are installed.
    ours.run()
    contenders = [ours, *(Contender(peer, partial(label, phantom)) for peer, (label, _) in peers.items())]
    # Bounds only libraries that are loaded by now; two threads waiting for a busy core make mean shift 20 times slower.
    with threadpool_limits(1):
        measured = measure(contenders, repeats=3, warm_up=False)
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
    if ari is not None:
        report.claims.append(Claim(f"{name}: ARI of modes", scores["modes"], at_least=ari))


def run(quick: bool) -> Report:
    """Compare on small blocks, and where time allows on blocks of the default shape."""
    report = Report(
        notes=[
            "One thread each; 16 channels of float16; speeds count all voxels of the block.",
            f"A sample is {SAMPLES} foreground voxels. After hdbscan on a sample, our own kernel gives every voxel the "
            "cluster of the nearest mean and splits clusters into connected components.",
        ]
    )
    sampled: Peers = {"hdbscan, sample": (hdbscan_of_a_sample, 20)}
    shifted: Peers = {"scikit-learn mean shift, sample": (mean_shift_of_a_sample, 25)}
    complete: Peers = {"hdbscan, all voxels": (hdbscan_of_all_voxels, 100)}
    compare(report, "easy 64³", make((64, 64, 64), 20, variant="easy", seed=0), sampled | shifted, 0.98)
    compare(report, "hard 64³", make((64, 64, 64), 20, variant="hard", seed=1), sampled, 0.98)
    side, objects = (40, 8) if quick else (48, 12)
    compare(report, f"easy {side}³", make((side,) * 3, objects, variant="easy", seed=0), complete, None)
    if not quick:
        # The sample stays as large while the block grows eightfold, so the peer's share of the work falls.
        sampled = {"hdbscan, sample": (hdbscan_of_a_sample, 8)}
        compare(report, "easy 128³", make((128, 128, 128), 110, variant="easy", seed=0), sampled, 0.98)
        compare(report, "hard 128³", make((128, 128, 128), 110, variant="hard", seed=0), sampled, 0.98)
    return report
