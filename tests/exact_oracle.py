"""Exact stitching written plainly on one array, and small volumes that make it hard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from oracles import components, contacts, gradients, grown, neighbours, straightened
from scipy import ndimage

from bench.phantoms import Phantom
from spoco_blocks.clustering import Context, Modes
from spoco_blocks.clustering.find_fragments import MERGE_FACTOR
from spoco_blocks.kernels.agglomeration import agglomerate
from spoco_blocks.kernels.blends import BESIDE
from spoco_blocks.kernels.borders import EVENNESS


@dataclass(frozen=True)
class Hard:
    """Embeddings, how they are clustered, and the scale of coordinates that are added."""

    phantom: Phantom
    context: Context
    method: Modes
    scale: float | None


def hard_volume(seed, shape, *, blend_voxels=None, planar=False):
    """Objects, noise or whole numbers, of which many distances are equal; any foreground, modes and thresholds."""
    rng = np.random.default_rng(seed)
    channels = int(rng.integers(3, 6))
    kind = rng.choice(["objects", "noise", "whole numbers"], p=[0.6, 0.2, 0.2])
    if kind == "noise":
        embeddings = rng.normal(0, rng.choice([0.3, 1.0]), (channels, *shape))
    elif kind == "whole numbers":
        embeddings = rng.integers(0, 3, (channels, *shape)).astype(float)
    else:
        middles = rng.integers(0, shape, (int(rng.integers(2, 30)), 3))
        apart = np.indices(shape).reshape(3, 1, -1) - middles.T[:, :, None]
        means = rng.normal(0, 2, (len(middles), channels))
        embeddings = means[(apart**2).sum(0).argmin(0)].T.reshape(channels, *shape)
        embeddings = ndimage.gaussian_filter(embeddings, (0, *[float(rng.choice([0, 0.5, 1]))] * 3))
        embeddings += float(rng.choice([0, 0.05, 0.3])) * rng.normal(size=embeddings.shape)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
    share = float(rng.choice([0.02, 0.5, 0.8, 1.0]))
    foreground = smooth <= np.quantile(smooth, share)
    threshold = float(rng.choice([0.05, 0.5, 1.5, 4]))
    modes = embeddings.reshape(channels, -1).T[rng.integers(0, foreground.size, int(rng.choice([0, 1, 5, 30])))]
    modes = np.unique(np.round(modes, int(rng.integers(0, 3))), axis=0).astype(np.float32)
    context = Context(threshold, threshold * float(rng.choice([1, 2, 5, 100])), modes)
    method = Modes(
        min_core_voxels=int(rng.integers(0, 4)),
        blend_voxels=int(rng.integers(1, 3)) if blend_voxels is None else blend_voxels,
        growth_rounds=int(rng.integers(0, 4)),
        refinement_sweeps=int(rng.integers(0, 3)),
        bandwidth=float(rng.choice([0.5, 1, 2])),
        merge_radius=float(rng.choice([0.3, 1, 2])),
    )
    scale = None if planar or rng.random() < 0.6 else float(rng.choice([3, 7.3, 50]))
    phantom = Phantom(embeddings.astype(np.float16), foreground.astype(np.uint32))
    return Hard(phantom, context, method, scale)


def by_first_voxels(*labelled):
    """Number labels 1 to n: those of the first array before those of the second, each by first voxels."""
    found, count = np.zeros(labelled[0].shape, np.uint32), 0
    for labels in labelled:
        _, first = np.unique(labels, return_index=True)
        for label in labels.reshape(-1)[np.sort(first)]:
            if label > 0:
                count += 1
                found[labels == label] = count
    return found


def connected(places, shape, alike, least):
    """Flood filling of listed voxels through neighbours that are alike; of enough voxels."""
    labels, todo, count = np.zeros(shape, np.uint32), set(places), 0
    for start in places:
        if start not in todo:
            continue
        todo.remove(start)
        members, front = [start], [start]
        while front:
            here = front.pop()
            for there in neighbours(here, shape):
                if there in todo and alike(here, there):
                    todo.remove(there)
                    members.append(there)
                    front.append(there)
        if len(members) >= least:
            count += 1
            labels[tuple(np.transpose(members))] = count
    return labels


def seeds_of(hard, embeddings, foreground):
    """Number cores, and behind them the middles of thin objects; and how many are cores."""
    method, gradient = hard.method, gradients(embeddings)
    reach, least = max(method.radius, method.merging), max(1, method.min_core_voxels)
    mode = np.zeros(foreground.shape, np.int32)
    for place in zip(*np.nonzero(foreground & (gradient < hard.context.gradient_threshold)), strict=True):
        squared = ((embeddings[:, *place].astype(float) - hard.context.modes.astype(float)) ** 2).sum(1)
        if len(squared) and squared.min() <= reach**2:
            mode[place] = 1 + squared.argmin()
    cores = components(mode, least)
    near = cores > 0
    for _ in range(method.blend_voxels):
        near = near | (foreground & ndimage.binary_dilation(near))
    thin = foreground & ~near & (gradient < hard.context.coreless_threshold)

    def alike(a, b):
        return ((embeddings[:, *a].astype(float) - embeddings[:, *b]) ** 2).sum() <= (1.5 * reach) ** 2

    found = connected([tuple(map(int, p)) for p in np.argwhere(thin)], thin.shape, alike, least)
    return by_first_voxels(cores, found), int(cores.max())


def means_of(labels, embeddings, count):
    """Mean embeddings of labels, row 0 unused, and their voxels."""
    voxels = np.bincount(labels.reshape(-1), minlength=count + 1)
    sums = np.stack([np.bincount(labels.reshape(-1), channel.reshape(-1), count + 1) for channel in embeddings], 1)
    return sums / np.maximum(voxels, 1)[:, None], voxels


def owners_of(hard, labels, cores, means, embeddings, foreground):
    """Which larger neighbour each seed belongs to that is but a blend of it and something else."""
    steps, size = hard.method.blend_voxels, np.bincount(labels.reshape(-1), minlength=len(means)).astype(float)
    size[: cores + 1] = np.inf
    beside = {label: {} for label in range(1, len(means))}
    for (a, b), count in contacts(labels).items():
        beside[a][b] = beside[b][a] = count
    owners = np.arange(len(means))
    for label in range(cores + 1, len(means)):
        larger = [other for other in beside[label] if (size[other], -other) > (size[label], -label)]
        if not larger:
            continue
        owner = min(larger, key=lambda other: (-beside[label][other], other))
        if size[label] > steps * beside[label][owner]:
            continue
        behind = []
        for place in np.argwhere(labels == label):
            for offset in steps * np.array([(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)]):
                there = place + offset
                if (there >= 0).all() and (there < labels.shape).all() and not foreground[tuple(there)]:
                    behind.append(embeddings[:, *there].astype(float))
        ends = [means[other] for other in beside[label] if other != owner]
        ends += [np.mean(behind, axis=0)] if behind else []
        for end in ends:
            line, here = end - means[owner], means[label] - means[owner]
            place = line @ here / max(line @ line, 1e-12)
            if 0 < place < 1 and ((here - place * line) ** 2).sum() < BESIDE**2 * max(line @ line, 1e-12):
                owners[label] = owner
    while (owners != owners[owners]).any():
        owners = owners[owners]
    return owners


def merged(labels, weights, means, distance, distinct=np.inf, small_voxels=0, small_distance=0.0):
    """The root of each label after touching ones were joined, the nearest first."""
    counts = contacts(labels)
    pairs, faces = np.array(list(counts), np.int64).reshape(-1, 2), np.array(list(counts.values()), np.int64)
    apart = np.linalg.norm(means[pairs[:, 0]] - means[pairs[:, 1]], axis=1) > distinct
    return agglomerate(
        pairs, faces, apart, weights, means * weights[:, None],
        merge_distance=distance, small_voxels=small_voxels, small_distance=small_distance,
    )  # fmt: skip


def uncut(hard):
    """Segment a volume as exact stitching does with the settings that are its defaults, all of it at once."""
    foreground, method = hard.phantom.foreground, hard.method
    embeddings = hard.phantom.embeddings.astype(np.float32)
    for axis in range(3 if hard.scale else 0):
        places = (np.arange(foreground.shape[axis]) / hard.scale).astype(np.float32)
        embeddings[axis] += places.reshape([-1 if a == axis else 1 for a in range(3)])
    embeddings = np.round(embeddings * np.float32(4096)) / np.float32(4096)
    seeds, cores = seeds_of(hard, embeddings, foreground)
    count = int(seeds.max())
    means, _ = means_of(seeds, embeddings, count)
    first = min(method.blend_voxels, method.growth_rounds)
    labels = grown(np.where(seeds <= cores, seeds, 0), embeddings, foreground & (seeds <= cores), means, first)
    labels = np.where(seeds > cores, seeds, labels)
    labels = grown(labels, embeddings, foreground, means, method.growth_rounds - first)
    owners = owners_of(hard, labels, cores, means, embeddings, foreground)
    owned = owners[labels]
    weights = np.maximum(np.bincount(owned.reshape(-1), minlength=count + 1), 1)
    roots = merged(owned, weights, means, method.merging)
    totals, sums = np.bincount(roots, weights, count + 1), np.zeros_like(means)
    np.add.at(sums, roots, means * weights[:, None])
    labels = straightened(
        roots[owned].astype(np.uint32), embeddings, sums / np.maximum(totals, 1)[:, None],
        method.refinement_sweeps, EVENNESS,
    )  # fmt: skip
    left = components((foreground & (labels == 0)).astype(np.int32), max(1, method.min_core_voxels))
    known = np.unique(labels[labels > 0])
    labels = np.where(labels > 0, 1 + np.searchsorted(known, labels), 0)
    fragments = np.where(left > 0, left + len(known), labels).astype(np.uint32)
    means, voxels = means_of(fragments, embeddings, int(fragments.max()))
    voxels[0] = 0
    roots = merged(fragments, voxels, means, MERGE_FACTOR, 2.0, 100, 3.0)[fragments]
    return np.where(fragments > 0, 1 + np.searchsorted(np.unique(roots[fragments > 0]), roots), 0)
