from __future__ import annotations

import numpy as np
import pytest

from spoco_blocks.kernels import blends

MEANS = np.array([[0, 0, 0], [4, 0, 0], [0, 4, 0], [2, 2, 0]], float)


def blend_owners(labels, embeddings, foreground, means, thickness, first=1):
    padded = np.pad(labels, 1)
    places = np.flatnonzero(padded >= first)
    return blends.blend_owners(padded, places, embeddings, foreground, means, thickness)


def two_blocks_and_a_sheet(sheet):
    """Give labels of two blocks with a sheet of label 3 between them, and their embeddings."""
    labels = np.zeros((8, 10, 30), np.uint32)
    labels[2:6, 2:8, 2:12], labels[2:6, 2:8, 12:14], labels[2:6, 2:8, 14:28] = 1, 3, 2
    means = MEANS.copy()
    means[3] = sheet
    return labels, means[labels].transpose(3, 0, 1, 2).astype(np.float16), means


@pytest.mark.parametrize(
    ("sheet", "owner"),
    [((2, 2, 0), 2), ((3, 1.2, 0.2), 2), ((2, 2, 2), 3), ((6, -2, 0), 3)],
    ids=["half way", "nearly on the line", "beside the line", "beyond its end"],
)
def test_a_sheet_between_two_objects(sheet, owner):
    labels, embeddings, means = two_blocks_and_a_sheet(sheet)
    # Both share as many faces with it: the smaller label of those that are larger than the sheet comes first.
    expected = 1 if owner == 2 else 3
    assert blend_owners(labels, embeddings, labels > 0, means, 3).tolist() == [0, 1, 2, expected]


def test_a_thick_fragment_on_the_line_is_an_object():
    labels, embeddings, means = two_blocks_and_a_sheet((2, 2, 0))
    labels[2:6, 2:8, 5:13] = 3
    assert blend_owners(labels, embeddings, labels > 0, means, 3).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("background", "owner"), [((0, 0, 4), 1), ((0, 4, 0), 3)])
def test_a_sheet_between_an_object_and_the_background(background, owner):
    labels = np.zeros((9, 20, 20), np.uint32)
    labels[:4], labels[4] = 1, 2
    means = np.array([background, (4, 0, 0), (2, 0, 2)], float)
    embeddings = means[labels].transpose(3, 0, 1, 2).astype(np.float16)
    assert blend_owners(labels, embeddings, labels > 0, means, 3).tolist() == [0, 1, 1 if owner == 1 else 2]


def test_owners_of_owners_and_no_contacts():
    labels = np.zeros((12, 20, 20), np.uint32)
    labels[:6], labels[6:8], labels[8] = 1, 2, 3
    means = np.array([(0, 0, 4), (4, 0, 0), (2.8, 0, 1.2), (1.6, 0, 2.4)], float)
    embeddings = means[labels].transpose(3, 0, 1, 2).astype(np.float32)
    assert blend_owners(labels, embeddings, labels > 0, means, 3).tolist() == [0, 1, 1, 1]
    assert blend_owners(np.zeros_like(labels), embeddings, labels > 0, means[:1], 3).tolist() == [0]


def test_only_labels_from_the_first_on_are_judged():
    labels, embeddings, means = two_blocks_and_a_sheet((2, 2, 0))
    swapped, order = np.array([0, 2, 3, 1], np.uint32)[labels], [0, 3, 1, 2]
    assert blend_owners(swapped, embeddings, labels > 0, means[order], 3).tolist() == [0, 2, 2, 3]
    assert blend_owners(swapped, embeddings, labels > 0, means[order], 3, 2).tolist() == [0, 1, 2, 3]
    assert blend_owners(labels, embeddings, labels > 0, means, 3, 3).tolist() == [0, 1, 2, 1]
