from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from spoco_blocks.kernels.skeleton import skeleton

CORNERS = np.ones((3, 3, 3), bool)
UNIT = (1.0, 1.0, 1.0)


def parts(found):
    n = len(found.places)
    return connected_components(coo_array((np.ones(len(found.edges)), found.edges.T), shape=(n, n)), directed=False)[0]


@pytest.mark.parametrize("thickness", [1, 2, 3, 4, 5, 8])
def test_a_rod_of_any_thickness_is_one_line_from_end_to_end(thickness):
    inside = np.zeros((12, 12, 60), bool)
    inside[2 : 2 + thickness, 3 : 3 + thickness, 5:55] = True
    found = skeleton(inside, (2.0, 2.0, 2.0), 1.5, 8.0)
    degree = np.bincount(found.edges.ravel(), minlength=len(found.places))
    assert parts(found) == 1
    assert len(found.edges) == len(found.places) - 1
    assert (degree == 1).sum() == 2
    assert np.ptp(found.places[:, 2]) > 50 - 1.5 * thickness
    middle = found.places[(found.places[:, 2] > 20) & (found.places[:, 2] < 40)]
    assert np.abs(middle[:, :2] - (np.array([2, 3]) + (thickness - 1) / 2)).max() <= 1
    assert found.radii.max() == pytest.approx(2 * ((thickness + 1) // 2))


def test_voxels_may_be_flat():
    # A round rod along z, of voxels that are narrow along x.
    _, y, x = np.indices((30, 40, 80)) * np.array([40.0, 10.0, 5.0]).reshape(3, 1, 1, 1)
    inside = np.hypot(y - 200, x - 200) < 60
    found = skeleton(inside, (40.0, 10.0, 5.0), 1.5, 160.0)
    assert parts(found) == 1
    assert set(found.places[:, 0]) == set(range(30))
    middle = np.abs(found.places[:, 0] - 15) < 10
    assert np.hypot(*((found.places[middle, 1:] * [10, 5] - 200).T)).max() < 15
    assert found.radii[middle].min() == pytest.approx(60, abs=12)


@pytest.mark.parametrize("seed", range(3))
def test_every_connected_part_has_one_connected_skeleton_inside_of_it(seed):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(30, 34, 38)), 2)
    inside = noise > np.quantile(noise, 0.75)
    labels, count = ndimage.label(inside, CORNERS)
    found = skeleton(inside, UNIT, 1.5, 4.0)
    assert parts(found) == count > 3
    assert set(labels[tuple(found.places.T)]) == set(range(1, count + 1))
    ends = found.places[found.edges]
    assert np.abs(ends[:, 0] - ends[:, 1]).max() == 1
    np.testing.assert_array_equal(*labels[tuple(np.moveaxis(ends, -1, 0))].T)


def test_fewer_branches_where_they_have_to_be_longer():
    comb = np.zeros((9, 40, 90), bool)
    comb[2:7, 2:7, 2:88] = True
    for tooth, start in enumerate(range(5, 80, 15)):
        comb[3:6, 7 : 9 + 5 * tooth, start : start + 3] = True
    ends = []
    for branch_length in (2.0, 8.0, 16.0, 40.0):
        found = skeleton(comb, UNIT, 1.5, branch_length)
        ends.append(int((np.bincount(found.edges.ravel()) == 1).sum()))
    assert ends == sorted(ends, reverse=True)
    assert ends[0] >= 6 > 2 == ends[-1]


def test_little_or_nothing():
    assert [len(part) for part in skeleton(np.zeros((3, 4, 5), bool), UNIT, 1.5, 4.0)] == [0, 0, 0]
    one = skeleton(np.ones((1, 1, 1), bool), UNIT, 1.5, 4.0)
    assert (one.places.tolist(), len(one.edges)) == ([[0, 0, 0]], 0)
