"""Whether a cluster of one embedding is one in another embedding too."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.distance import squared_distance
from spoco_blocks.kernels.half import JIT


def cluster_agreement(
    clusters: NDArray[np.uint32], others: NDArray[np.float32], distance: float, anchors: int, seed: int
) -> NDArray[np.float64]:
    """Say of every cluster how well it is found again around its own voxels in another embedding.

    Parameters
    ----------
    clusters : ndarray of uint32, shape (n,)
        Cluster of each voxel, 1 to k; 0 = none.
    others : ndarray of float32, shape (n, c)
        The other embedding of the same voxels.
    distance : float
        What is nearer than this to an anchor is what the other embedding takes for the anchor's object.
    anchors : int
        Voxels that are drawn from each cluster.
    seed : int
        Seed of the draw.

    Returns
    -------
    ndarray of float64, shape (k + 1,)
        Median over the anchors of the intersection over union; 0 for a cluster without voxels.

    Notes
    -----
    Wolny et al. (CVPR 2022), consistency clustering; anchors are drawn with replacement, as in the published code.
    O(k a n c) time for a anchors.
    """
    sizes = np.bincount(clusters, minlength=1)
    order = np.argsort(clusters, kind="stable")
    ends = np.cumsum(sizes)
    rng, found = np.random.default_rng(seed), np.zeros(len(sizes))
    others = np.ascontiguousarray(others, np.float32)
    for cluster in range(1, len(sizes)):
        if sizes[cluster]:
            members = order[ends[cluster - 1] : ends[cluster]]
            drawn = rng.choice(members, anchors)
            found[cluster] = np.median(_overlaps(clusters, others, drawn, cluster, np.float32(distance) ** 2))
    return found


@njit(**JIT)
def _overlaps(
    clusters: NDArray[np.uint32],
    others: NDArray[np.float32],
    drawn: NDArray[np.int64],
    cluster: int,
    square: np.float32,
) -> NDArray[np.float64]:
    overlaps = np.empty(len(drawn), np.float64)
    for a in range(len(drawn)):
        anchor, common, either = others[drawn[a]], 0, 0
        for i in range(len(others)):
            inside, near = clusters[i] == cluster, squared_distance(others[i], anchor) < square
            common += inside and near
            either += inside or near
        overlaps[a] = common / either
    return overlaps
