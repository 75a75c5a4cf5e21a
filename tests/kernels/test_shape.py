"""Moments and faces against voxel-by-voxel counts."""

from __future__ import annotations

import numpy as np
import pytest

from spoco_blocks.kernels.shape import PRODUCTS, contacts_by_axis, open_faces, second_moments


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 9), (5, 6, 7), (8, 3, 1)])
@pytest.mark.parametrize("labels", [2, 5])
def test_equals_counting_voxel_by_voxel(shape, labels):
    volume = np.random.default_rng(sum(shape)).integers(0, labels, shape).astype(np.uint32)
    moments, faces, contacts = np.zeros((labels, 6), int), np.zeros((labels, 3), int), {}
    for place in np.ndindex(*shape):
        label = int(volume[place])
        if label:
            moments[label] += [place[a] * place[b] for a, b in PRODUCTS]
        for axis in range(3):
            after = tuple(p + (a == axis) for a, p in enumerate(place))
            other = int(volume[after]) if after[axis] < shape[axis] else label
            if label == other:
                continue
            faces[label, axis] += 1
            faces[other, axis] += 1
            if label and other:
                key = (axis, min(label, other), max(label, other))
                contacts[key] = contacts.get(key, 0) + 1
    faces[0] = 0
    np.testing.assert_array_equal(second_moments(volume, labels - 1), moments)
    np.testing.assert_array_equal(open_faces(volume, labels - 1), faces)
    expected = [[a, b, axis, n] for (axis, a, b), n in sorted(contacts.items())]
    assert contacts_by_axis(volume).tolist() == expected
