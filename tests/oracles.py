"""Slow, obvious twins of the kernels, and scores to compare labellings with."""

from __future__ import annotations

from itertools import product

import numpy as np

NEIGHBOURS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, 1), (0, 1, 0), (1, 0, 0))


def adjusted_rand_index(first, second, where=None):
    """Hubert and Arabie's index over the voxels of a mask."""
    if where is None:
        where = np.ones(first.shape, bool)
    a = np.unique(first[where], return_inverse=True)[1]
    b = np.unique(second[where], return_inverse=True)[1]
    if a.size < 2:
        return 1.0
    joint = np.unique(a.astype(np.int64) * (b.max() + 1) + b, return_counts=True)[1]
    both, rows, columns = (
        (n * (n - 1) / 2.0).sum() for n in (joint.astype(float), np.bincount(a) * 1.0, np.bincount(b) * 1.0)
    )
    expected = rows * columns / (a.size * (a.size - 1) / 2)
    largest = (rows + columns) / 2
    return 1.0 if largest == expected else (both - expected) / (largest - expected)


def components(values, min_voxels):
    """Flood filling in raster order."""
    labels = np.zeros(values.shape, np.uint32)
    seen = values == 0
    count = 0
    for start in np.ndindex(values.shape):
        if seen[start]:
            continue
        seen[start] = True
        members, front = [start], [start]
        while front:
            here = front.pop()
            for there in neighbours(here, values.shape):
                if not seen[there] and values[there] == values[start]:
                    seen[there] = True
                    members.append(there)
                    front.append(there)
        if len(members) >= min_voxels:
            count += 1
            for member in members:
                labels[member] = count
    return labels


def neighbours(place, shape):
    """The 6-neighbours inside the array."""
    moved = (tuple(p + o for p, o in zip(place, offset, strict=True)) for offset in NEIGHBOURS)
    return [m for m in moved if all(0 <= p < s for p, s in zip(m, shape, strict=True))]


def gradients(embeddings):
    """Gradient magnitude by clamped central differences."""
    wide = embeddings.astype(np.float64)
    squared = np.zeros(wide.shape[1:])
    for axis in (1, 2, 3):
        padded = np.pad(wide, [(1, 1) if a == axis else (0, 0) for a in range(4)], mode="edge")
        n = wide.shape[axis]
        high, low = np.take(padded, range(2, n + 2), axis), np.take(padded, range(n), axis)
        squared += ((high - low) ** 2).sum(0)
    return np.sqrt(squared)


def grown(labels, embeddings, foreground, means, rounds):
    """Synchronous growth, voxel by voxel."""
    labels = labels.copy()
    todo = [tuple(p) for p in np.argwhere(foreground & (labels == 0))]
    wide, means = embeddings.astype(np.float64), means.astype(np.float64)
    for _ in range(rounds):
        before = labels.copy()
        for place in todo:
            choices = {int(before[n]) for n in neighbours(place, labels.shape)} - {0}
            if before[place] == 0 and choices:
                vector = wide[(slice(None), *place)]
                labels[place] = min(choices, key=lambda k: (((vector - means[k]) ** 2).sum(), k))
    return labels


def straightened(labels, embeddings, means, sweeps, evenness):
    """Every voxel in turn, first the even ones: own label, or that of a neighbour that is worth more."""
    labels = labels.copy()
    wide, means = embeddings.astype(np.float64), means.astype(np.float64)
    for half in range(2 * sweeps):
        padded = np.pad(labels, 1)
        for place in np.argwhere(labels > 0):
            if sum(place) % 2 != half % 2:
                continue
            offsets = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, 1), (0, 1, 0), (1, 0, 0))
            around = [int(padded[tuple(place + 1 + offset)]) for offset in np.array(offsets)]
            vector, choice = wide[(slice(None), *place)], int(labels[tuple(place)])
            for label in [n for n in around if n > 0]:
                farther = ((vector - means[label]) ** 2).sum() - ((vector - means[choice]) ** 2).sum()
                gap = ((means[label] - means[choice]) ** 2).sum()
                if label != choice and farther < evenness * gap * (around.count(label) - around.count(choice)):
                    choice = label
            labels[tuple(place)] = choice
    return labels


def spread(lattice, embeddings, foreground, means, step, max_distance, threshold):
    """Labels from the lattice's voxels around each voxel; what has none; what is far from its label and flat."""
    labels, empty, odd = np.zeros(foreground.shape, np.uint32), [], []
    wide = embeddings.astype(np.float64)
    gradient = gradients(embeddings)
    for flat, place in enumerate(np.ndindex(*foreground.shape)):
        if not foreground[place]:
            continue
        columns = [{p // s, min((p + s - 1) // s, n - 1)} for p, s, n in zip(place, step, lattice.shape, strict=True)]
        around = {int(lattice[k, i, j]) for k in columns[0] for i in columns[1] for j in columns[2]} - {0}
        squared = {k: float(((wide[(slice(None), *place)] - means[k]) ** 2).sum()) for k in around}
        choice = min(around, key=lambda k: (squared[k], k), default=0)
        labels[place] = choice
        if choice == 0:
            empty.append(flat)
        if (choice == 0 or squared[choice] > max_distance**2) and gradient[place] < threshold:
            odd.append(flat)
    return labels, empty, odd


def contacts(labels):
    """Counts of voxel faces between different labels."""
    counts = {}
    for axis in range(3):
        n = labels.shape[axis]
        for a, b in zip(
            np.take(labels, range(n - 1), axis).ravel(), np.take(labels, range(1, n), axis).ravel(), strict=True
        ):
            if a != b and a and b:
                pair = (int(min(a, b)), int(max(a, b)))
                counts[pair] = counts.get(pair, 0) + 1
    return counts


def agglomerated(pairs, contacts, distinct, voxels, sums, merge_distance, small_voxels, small_distance, min_contacts=1):
    """Look at all pairs of clusters, fuse the nearest, start again."""
    clusters = {i: [i] for i in range(1, len(voxels)) if voxels[i] > 0}
    size = {i: int(voxels[i]) for i in clusters}
    total = {i: [float(v) for v in sums[i]] for i in clusters}

    def distance(a, b):
        squared = 0.0
        for x, y in zip(total[a], total[b], strict=True):
            squared += (x / size[a] - y / size[b]) ** 2
        return squared

    def allowed(a, b):
        faces, apart = 0, False
        for (p, q), count, cannot in zip(pairs, contacts, distinct, strict=True):
            if (p in clusters[a] and q in clusters[b]) or (q in clusters[a] and p in clusters[b]):
                faces += int(count)
                apart = apart or bool(cannot)
        return faces >= min_contacts and not apart

    for bound, small in ((merge_distance, float("inf")), (small_distance, small_voxels)):
        while True:
            best = None
            for a, b in product(sorted(clusters), repeat=2):
                if a >= b or not (size[a] < small or size[b] < small) or distance(a, b) > bound * bound:
                    continue
                if (best is None or (distance(a, b), a, b) < best) and allowed(a, b):
                    best = (distance(a, b), a, b)
            if best is None:
                break
            _, a, b = best
            clusters[a] += clusters.pop(b)
            size[a] += size.pop(b)
            total[a] = [x + y for x, y in zip(total[a], total.pop(b), strict=True)]
    roots = np.arange(len(voxels))
    for root, members in clusters.items():
        roots[members] = root
    return roots


def mutex_partition(affinities, offsets, attractive, mask):
    """Mutex watershed with sets: every edge in order, clusters and exclusions as plain Python sets."""
    edges = []
    for o, offset in enumerate(offsets):
        for start in np.ndindex(mask.shape):
            end = tuple(int(a + b) for a, b in zip(start, offset, strict=True))
            if all(0 <= e < n for e, n in zip(end, mask.shape, strict=True)) and mask[start] and mask[end]:
                affinity = int(affinities[(o, *start)])
                edges.append((255 - affinity if o < attractive else affinity, o, start, end))
    cluster = {place: {place} for place in np.ndindex(mask.shape) if mask[place]}
    apart = set()
    for _, o, start, end in sorted(edges):
        a, b = cluster[start], cluster[end]
        if a is b or any((p, q) in apart for p in a for q in b):
            continue
        if o >= attractive:
            apart |= {(start, end), (end, start)}
        else:
            a |= b
            for place in b:
                cluster[place] = a
    labels, number = np.zeros(mask.shape, np.uint32), {}
    for place in sorted(cluster):
        labels[place] = number.setdefault(id(cluster[place]), len(number) + 1)
    return labels
