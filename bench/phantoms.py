"""Embeddings with known truth: crowded Voronoi-like objects whose embeddings blend where they meet."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom
from scipy.spatial import cKDTree
from scipy.stats import chi2
from skimage.measure import label as connected

Variant = Literal["easy", "noisy", "hard"]
# Objects of one embedding this close would be one to the eye, too: a thread of a third object is between them at most.
NEAR = 4


@dataclass(frozen=True)
class Phantom:
    """Embeddings and what they stand for.

    Attributes
    ----------
    embeddings : ndarray of float16, shape (c, z, y, x)
        The embedding of every voxel.
    truth : ndarray of uint32, shape (z, y, x)
        Objects, 0 = background.
    """

    embeddings: NDArray[np.float16]
    truth: NDArray[np.uint32]

    @property
    def foreground(self) -> NDArray[np.bool_]:
        """Where objects are."""
        return self.truth > 0

    @property
    def objects(self) -> int:
        """Number of objects."""
        return len(np.unique(self.truth[self.foreground]))


def make(
    shape: tuple[int, int, int], objects: int, channels: int = 16, variant: Variant = "easy", seed: int = 0
) -> Phantom:
    """Generate a phantom.

    Parameters
    ----------
    shape : tuple of int
        Extent along z, y, x.
    objects : int
        Objects to draw; a few are dropped because too little of them is left outside the background.
    channels : int
        Channels of the embedding.
    variant : {"easy", "noisy", "hard"}
        easy: means at least 4 apart, 95 % of the noise within 0.5. noisy: 1.6 times the noise, wider blending. hard:
        means of objects that touch, or nearly do, only 2 apart; far objects share means.
    seed : int
        Seed of everything drawn.

    Returns
    -------
    Phantom
        The embeddings and the truth.
    """
    rng = np.random.default_rng(seed)
    first, second, depth = _cells(rng, shape, objects)
    into = _smooth(rng, shape, 24)
    into = np.quantile(into, 0.7) - into
    slopes = np.sqrt(sum(np.gradient(into, axis=a) ** 2 for a in range(3) if shape[a] > 1)) + 1e-3
    depth_in_foreground = into / slopes
    truth = largest_parts(np.where(into > 0, first, 0))
    if variant == "hard":
        means = _palette_means(rng, truth, objects, channels, 2.0)
    else:
        means = separate_means(rng, objects + 1, channels, 4.0)
    widths = 1 + (1.5 if variant == "noisy" else 1.0) * rng.random(100003)
    width = widths[(np.minimum(first, second) * 1009 + np.maximum(first, second)) % 100003]
    own = np.minimum(1, 0.5 + 0.5 * depth / width).astype(np.float32)
    inside = np.clip(0.5 + 0.5 * depth_in_foreground / 1.5, 0, 1).astype(np.float32)
    inside[(truth == 0) & (into > 0)] = 0
    spread = 0.5 / np.sqrt(chi2.ppf(0.95, channels)) * (1.6 if variant == "noisy" else 1.0)
    embeddings = np.empty((channels, *shape), np.float16)
    for c in range(channels):
        values = own * means[first, c] + (1 - own) * means[second, c]
        values = inside * values + (1 - inside) * means[0, c]
        smooth = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 2.0, truncate=2.5)
        noise = smooth / smooth.std() + rng.standard_normal(shape, dtype=np.float32)
        if variant == "noisy":
            noise += 0.5 * np.sqrt(2) * _smooth(rng, shape, 16)
        embeddings[c] = values + spread * np.sqrt(0.5) * noise
    return Phantom(embeddings, truth)


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], step: int) -> NDArray[np.float32]:
    """Draw a smooth random field of standard deviation 1."""
    coarse = rng.standard_normal([max(4, s // step + 3) for s in shape]).astype(np.float32)
    field = zoom(coarse, [s / (n - 2) for s, n in zip(shape, coarse.shape, strict=True)], order=3)
    field = field[tuple(slice(0, s) for s in shape)]
    unit: NDArray[np.float32] = field / (field.std() + 1e-9)
    return unit


def _cells(
    rng: np.random.Generator, shape: tuple[int, int, int], objects: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Give the nearest and second nearest object of every voxel, and its depth inside the nearest."""
    spacing = (np.prod(shape) / objects) ** (1 / sum(s > 1 for s in shape))
    centres = rng.random((objects, 3)) * shape
    weights = (rng.random(objects) * 0.5 * spacing) ** 2
    # A power diagram as a Voronoi diagram with one more axis; the weights vary the objects' sizes.
    lifted = np.c_[centres, np.sqrt(weights.max() - weights)]
    places = np.stack(np.meshgrid(*[np.arange(s, dtype=np.float32) for s in shape], indexing="ij"), -1)
    for axis in range(3):
        if shape[axis] > 1:
            places[..., axis] += _smooth(rng, shape, 12) * min(2.5, 0.1 * spacing)
    queries = np.c_[places.reshape(-1, 3), np.zeros(np.prod(shape), np.float32)]
    distances, nearest = cKDTree(lifted).query(queries, k=2)
    gap = np.linalg.norm(centres[nearest[:, 0]] - centres[nearest[:, 1]], axis=1)
    depth = (distances[:, 1] ** 2 - distances[:, 0] ** 2) / (2 * np.maximum(gap, 1e-3))
    first, second = (nearest + 1).T
    return first.reshape(shape), second.reshape(shape), depth.reshape(shape).astype(np.float32)


def largest_parts(labels: NDArray[np.int64], min_voxels: int = 200) -> NDArray[np.uint32]:
    """Keep the largest component of each object, and drop what is small."""
    parts = connected(labels, background=0, connectivity=1)
    sizes = np.bincount(parts.ravel())
    owner = np.zeros(len(sizes), np.int64)
    owner[parts.ravel()] = labels.ravel()
    kept = np.zeros(len(sizes), bool)
    for part in np.argsort(-sizes, kind="stable"):
        if part and sizes[part] >= min_voxels and not (kept & (owner == owner[part])).any():
            kept[part] = True
    return np.where(kept[parts], labels, 0).astype(np.uint32)


def separate_means(rng: np.random.Generator, count: int, channels: int, distance: float) -> NDArray[np.float32]:
    """Draw means that are pairwise at least `distance` apart, as crowded as they come."""
    scale, fails = distance / np.sqrt(2 * channels), 0
    means = np.empty((0, channels))
    while len(means) < count:
        candidate = rng.standard_normal(channels) * scale
        if ((means - candidate) ** 2).sum(1).min(initial=np.inf) >= distance**2:
            means, fails = np.vstack([means, candidate]), 0
        else:
            fails += 1
            if fails > 200:
                scale, fails = scale * 1.03, 0
    return means.astype(np.float32)


def _palette_means(
    rng: np.random.Generator, truth: NDArray[np.uint32], objects: int, channels: int, distance: float
) -> NDArray[np.float32]:
    """Colour the objects with 2 c means so that those within about `NEAR` voxels of each other differ by `distance`."""
    near: list[set[int]] = [set() for _ in range(objects + 1)]
    wide = np.pad(truth, NEAR)
    for offset in product(range(-NEAR, NEAR + 1, 2), repeat=3):
        if offset <= (0, 0, 0):
            continue
        moved = wide[tuple(slice(NEAR + o, NEAR + o + n) for o, n in zip(offset, truth.shape, strict=True))]
        differ = (truth != moved) & (truth > 0) & (moved > 0)
        for a, b in np.unique(np.stack([truth[differ], moved[differ]], 1), axis=0):
            near[a].add(int(b))
            near[b].add(int(a))
    palette = np.concatenate([np.eye(channels), -np.eye(channels)]) * distance / np.sqrt(2)
    palette = palette @ np.linalg.qr(rng.standard_normal((channels, channels)))[0]
    colours = np.full(objects + 1, -1)
    for i in rng.permutation(objects + 1):
        used = {colours[j] for j in near[i]}
        colours[i] = rng.choice([k for k in range(2 * channels) if k not in used] or range(2 * channels))
    jitter = rng.standard_normal((objects + 1, channels)) * 0.1 / np.sqrt(channels)
    means: NDArray[np.float32] = (palette[colours] + jitter).astype(np.float32)
    return means
