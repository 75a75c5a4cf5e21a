"""Slow, obvious twins of the loss terms: one voxel, one pair, one anchor at a time, in float64.

Embeddings are (e, n) arrays, an object is the array of its voxels.
"""

from __future__ import annotations

import math

import numpy as np

from spoco_blocks.learn.label_values import BACKGROUND
from spoco_blocks.learn.losses import MIN_VOXELS


def objects_of(labels):
    """The voxels of each object that is large enough, by rising id."""
    flat = np.asarray(labels).ravel()
    found = [np.flatnonzero(flat == i) for i in sorted(set(flat[flat > 0].tolist()))]
    return [voxels for voxels in found if len(voxels) >= MIN_VOXELS]


def means_of(e, objects):
    return [np.mean([e[:, i] for i in voxels], axis=0) for voxels in objects]


def distance(a, b):
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True)))


def average(values):
    return sum(values) / len(values) if values else 0.0


def pull(e, objects, delta_var):
    per_object = []
    for voxels, mean in zip(objects, means_of(e, objects), strict=True):
        per_object.append(average([max(0.0, distance(e[:, i], mean) - delta_var) ** 2 for i in voxels]))
    return average(per_object)


def push(means, delta_dist, near=None):
    terms = []
    for k, one in enumerate(means):
        for m, other in enumerate(means):
            if k != m and (near is None or near[k][m]):
                terms.append(max(0.0, 2 * delta_dist - distance(one, other)) ** 2)
    return average(terms)


def regulariser(means):
    return average([distance(mean, np.zeros(len(mean))) for mean in means])


def unlabelled_push(means, e, unlabelled, delta_dist):
    return average([max(0.0, delta_dist - distance(e[:, i], mean)) ** 2 for mean in means for i in unlabelled])


def soft_mask(anchor, e, width):
    return np.array([math.exp(-(distance(anchor, e[:, i]) ** 2) / width) for i in range(e.shape[1])])


def dice_distance(a, b, ignored):
    overlap = area = 0.0
    for x, y, left_out in zip(a.tolist(), b.tolist(), ignored.tolist(), strict=True):
        if not left_out:
            overlap += x * y
            area += x * x + y * y
    return 1 - 2 * overlap / area


def instance_dice(anchors, e, objects, ignored, width):
    terms = []
    for anchor, voxels in zip(anchors, objects, strict=True):
        mask = np.zeros(e.shape[1])
        mask[voxels] = 1
        terms.append(dice_distance(soft_mask(anchor, e, width), mask, ignored))
    return average(terms)


def consistency(f, g, anchors, width, ignored):
    masks = [(soft_mask(f[:, i], f, width), soft_mask(g[:, i], g, width)) for i in anchors]
    return average([dice_distance(a, b, ignored) for a, b in masks])


def covering(f, g, order, count, delta_var, uncovered):
    """Take voxels in the given order, those that no earlier anchor covers, until few are left."""
    left, anchors = list(order), []
    while len(left) > uncovered * len(order) and len(anchors) < count:
        p = left[0]
        anchors.append(p)
        left = [i for i in left if min(distance(f[:, i], f[:, p]), distance(g[:, i], g[:, p])) > delta_var]
    return anchors


def near(labels, radius):
    """For each pair of objects, whether any voxels of their boxes are within the radius, axis by axis scaled."""
    boxes = [np.stack(np.unravel_index(voxels, labels.shape), 1) for voxels in objects_of(labels)]
    table = []
    for one in boxes:
        row = []
        for other in boxes:
            total = 0.0
            for axis in range(3):
                mine = range(one[:, axis].min(), one[:, axis].max() + 1)
                theirs = range(other[:, axis].min(), other[:, axis].max() + 1)
                gap = min(abs(a - b) for a in mine for b in theirs)
                total += (gap / radius[axis]) ** 2 if gap else 0.0
            row.append(total <= 1)
        table.append(row)
    return table


def foreground(logits, labels):
    inside = [math.log1p(math.exp(-x)) for x, label in zip(logits, labels, strict=True) if label > 0]
    outside = [math.log1p(math.exp(x)) for x, label in zip(logits, labels, strict=True) if label == BACKGROUND]
    return 0.5 * average(inside) + 0.5 * average(outside) if outside else None


def positioned(output, scale):
    """Embeddings (e, n) of what a network gives, with position / scale added to the first three channels."""
    e = np.array(output[:-1], np.float64)
    for place in np.ndindex(e.shape[1:]):
        for axis in range(3):
            e[(axis, *place)] += place[axis] / scale[axis]
    return e.reshape(len(e), -1)
