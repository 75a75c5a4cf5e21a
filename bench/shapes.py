"""Embeddings of objects that are hard to keep: thin, branching, tiny, hollow, touching, apart in z only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from bench.phantoms import Phantom, largest_parts, separate_means

Labels = NDArray[np.uint32]
SIDE = 64


def shapes(kind: str, channels: int = 16, seed: int = 0, distance: float = 4.0) -> Phantom:
    """Generate objects of one kind.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    channels : int
        Channels of the embedding.
    seed : int
        Seed of everything drawn.
    distance : float
        How far apart the objects' means are at least.

    Returns
    -------
    Phantom
        The embeddings, blurred by 0.8 voxels as a network does, with 95 % of the noise within 0.5; and the truth. The
        background has a mean of its own, and blends in like an object.
    """
    rng = np.random.default_rng(seed)
    truth = np.zeros((SIDE, SIDE, SIDE), np.uint32)
    KINDS[kind](rng, truth)
    means = separate_means(rng, int(truth.max()) + 1, channels, distance)
    spread = 0.5 / np.sqrt(1.6 * channels)
    # Where z is coarse, what is one voxel away is far away.
    blur = (0.3, 0.8, 0.8) if kind == "layers" else 0.8
    embeddings = np.empty((channels, *truth.shape), np.float16)
    for c in range(channels):
        values = gaussian_filter(means[truth, c], blur)
        embeddings[c] = values + spread * rng.standard_normal(truth.shape, dtype=np.float32)
    return Phantom(embeddings, truth)


def _ball(truth: Labels, centre: NDArray[np.float64], radius: float, label: int) -> None:
    """Draw a ball where nothing is yet."""
    start = np.maximum(np.floor(centre - radius).astype(int), 0)
    stop = np.minimum(np.ceil(centre + radius).astype(int) + 1, truth.shape)
    if (stop <= start).any():
        return
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    places = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(start, stop, strict=True)], indexing="ij"), -1)
    inside = ((places - centre) ** 2).sum(-1) <= radius**2
    truth[box][inside & (truth[box] == 0)] = label


def _tube(
    rng: np.random.Generator,
    truth: Labels,
    start: NDArray[np.float64],
    direction: NDArray[np.float64],
    length: int,
    radius: float,
    label: int,
) -> list[NDArray[np.float64]]:
    """Draw a winding tube and give the points of its axis."""
    axis, point = [], start.astype(float)
    for _ in range(2 * length):
        axis.append(point.copy())
        direction = direction + 0.08 * rng.standard_normal(3)
        direction = direction / np.linalg.norm(direction)
        point = point + 0.5 * direction
    for point in axis:
        _ball(truth, point, radius, label)
    return axis


def _keep_whole(truth: Labels) -> None:
    """Of an object that an earlier one has cut, keep the largest part, unless it is short."""
    truth[...] = largest_parts(truth.astype(np.int64), min_voxels=100)


def _thin(rng: np.random.Generator, truth: Labels) -> None:
    for label in range(1, 21):
        start = rng.uniform(4, SIDE - 4, 3)
        start[2] = 2
        _tube(rng, truth, start, np.array([0, 0, 1.0]), SIDE, 1.5, label)
    _keep_whole(truth)


def _mixed(rng: np.random.Generator, truth: Labels) -> None:
    _thin(rng, truth)
    for label, centre in enumerate(np.ndindex(2, 2, 2), start=int(truth.max()) + 1):
        _ball(truth, 16 + 31 * np.array(centre), 14, label)


def _branching(rng: np.random.Generator, truth: Labels) -> None:
    for label in range(1, 9):
        start = rng.uniform(12, SIDE - 12, 3)
        start[0] = 2
        trunk = _tube(rng, truth, start, np.array([1.0, 0, 0]), SIDE - 8, 2.0, label)
        for _ in range(4):
            sideways = np.array([0.3, *rng.standard_normal(2)])
            _tube(rng, truth, trunk[rng.integers(20, len(trunk) - 20)], sideways, 18, 1.5, label)
    _keep_whole(truth)


def _tiny(rng: np.random.Generator, truth: Labels) -> None:
    _ball(truth, np.array([32.0, 32, 32]), 18, 1)
    for label in range(2, 42):
        while True:
            centre = rng.uniform(4, SIDE - 4, 3).round()
            low = (centre - 4).astype(int)
            around = truth[tuple(slice(a, a + 9) for a in low)]
            if not around.any():
                break
        _ball(truth, centre, 2.0, label)


def _hollow(rng: np.random.Generator, truth: Labels) -> None:
    label = 0
    for centre in np.stack(np.meshgrid([16.0, 47], [16.0, 47], [16.0, 47], indexing="ij"), -1).reshape(-1, 3):
        outer = rng.uniform(11, 14)
        cavity, whole = np.zeros_like(truth), np.zeros_like(truth)
        _ball(whole, centre, outer, 1)
        _ball(cavity, centre, outer - 2.5, 1)
        truth[(whole > 0) & (cavity == 0)] = label + 1
        _ball(truth, centre, outer - 5, label + 2)
        label += 2


def _touching(rng: np.random.Generator, truth: Labels) -> None:
    order = rng.permutation(8**3).reshape(8, 8, 8) + 1
    truth[...] = np.kron(order, np.ones((8, 8, 8), int))
    truth[:, :, -8:] = 0


def _layers(rng: np.random.Generator, truth: Labels) -> None:
    label = 0
    for z in range(1, SIDE - 3, 4):
        for y, x in ((16, 16), (16, 47), (47, 16), (47, 47)):
            label += 1
            cylinder = np.hypot(*np.ogrid[-y : SIDE - y, -x : SIDE - x]) <= rng.uniform(8, 14)
            truth[z : z + 3, cylinder] = label


KINDS: dict[str, Callable[[np.random.Generator, Labels], None]] = {
    "thin": _thin,
    "mixed": _mixed,
    "branching": _branching,
    "tiny": _tiny,
    "hollow": _hollow,
    "touching": _touching,
    "layers": _layers,
}
