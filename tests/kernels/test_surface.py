"""Surfaces against what defines them: closed, outward, midway between inside and outside."""

from __future__ import annotations

import numpy as np
import pytest
from meshes import is_watertight, volume_nm3
from scipy import ndimage

from spoco_blocks.kernels.surface import object_boxes, surface


@pytest.mark.parametrize("density", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_surface_lies_between_inside_and_outside_and_is_closed_however_voxels_touch(density):
    rng = np.random.default_rng(0)
    for _ in range(20):
        inside = np.pad(rng.random((5, 6, 7)) < density, 1)
        vertices, triangles = surface(inside)
        below, above = vertices // 2, -(-vertices // 2)
        assert ((above - below).sum(axis=1) == 1).all()
        assert (inside[tuple(below.T)] != inside[tuple(above.T)]).all()
        crossings = sum(np.diff(inside, axis=axis).sum() for axis in range(3))
        assert len(vertices) == crossings
        assert is_watertight(vertices[triangles][:, :, ::-1])


def test_a_single_voxel_is_an_octahedron_turned_outwards():
    inside = np.zeros((3, 3, 3), bool)
    inside[1, 1, 1] = True
    vertices, triangles = surface(inside)
    assert len(triangles) == 8
    # In half voxels: its corners lie 1 from its centre.
    assert volume_nm3(vertices[triangles][:, :, ::-1]) == pytest.approx(4 / 3)


@pytest.mark.parametrize("inside", [np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool), np.ones((1, 3, 3), bool)])
def test_without_an_end_there_is_no_surface(inside):
    vertices, triangles = surface(inside)
    assert (vertices.shape, triangles.shape) == ((0, 3), (0, 3))


def test_boxes_are_those_of_scipy():
    labels = np.random.default_rng(1).choice([0, 3, 5, 70000], (6, 7, 8), p=[0.9, 0.05, 0.03, 0.02]).astype(np.uint32)
    ids, start, stop = object_boxes(labels)
    assert ids.tolist() == [3, 5, 70000]
    for number, first, last in zip(ids, start, stop, strict=True):
        (expected,) = ndimage.find_objects((labels == number).astype(int))
        assert [(s.start, s.stop) for s in expected] == list(zip(first, last, strict=True))
