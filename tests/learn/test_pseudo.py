"""Pseudo-labels speak of unlabelled voxels only, and only in the part that trains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms import store
from scipy import ndimage

from spoco_blocks.grid import Box, triple
from spoco_blocks.learn.label_values import BACKGROUND, IGNORE, UNLABELLED
from spoco_blocks.learn.pseudo import PseudoLabels
from spoco_blocks.learn.supervision import Supervision
from spoco_blocks.volumes import open_volume

SHAPE = (24, 30, 36)
PART = Box((2, 0, 4), (20, 30, 30))
ANNOTATED = 2


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    labels, ignore = np.zeros(SHAPE, np.uint32), np.zeros(SHAPE, np.uint8)
    labels[4:9, 4:9, 6:12], labels[12:16, 20:26, 20:26] = 700, 3
    ignore[:, :, 28:] = 1
    pseudo = np.zeros(PART.shape, np.uint32)
    pseudo[3:8, 8:14, 4:9], pseudo[10:16, 2:8, 2:9], pseudo[0:4, 20:25, 20:26] = 1, 2, 3
    background = (rng.random(PART.shape) < 0.2).astype(np.uint8)
    return {"labels": labels, "ignore": ignore, "pseudo": pseudo, "background": background}


@pytest.fixture(scope="module")
def taught(arrays, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pseudo")
    opened = {name: open_volume(store(folder / f"{name}.zarr", array)) for name, array in arrays.items()}
    plain = Supervision(
        labels=opened["labels"],
        kept=np.array([3, 700], np.uint64),
        region=Box.of_shape(SHAPE),
        background=None,
        ignore=opened["ignore"],
        dense=False,
        background_fraction=0.0,
        shell=(2, 2, 2),
        seed=0,
    )
    return replace(plain, pseudo=PseudoLabels(opened["pseudo"], opened["background"], PART, (2, 2, 2)))


def everything(supervision):
    return supervision.read(Box.of_shape(SHAPE))


def test_what_is_known_stays_and_the_rest_is_filled(arrays, taught):
    before, after = everything(replace(taught, pseudo=None)), everything(taught)
    np.testing.assert_array_equal(after[before != UNLABELLED], before[before != UNLABELLED])
    pseudo, background = np.zeros(SHAPE, np.int64), np.zeros(SHAPE, bool)
    pseudo[PART.slices], background[PART.slices] = arrays["pseudo"], arrays["background"] > 0
    free = before == UNLABELLED
    for number in (1, 2, 3):
        np.testing.assert_array_equal(after == ANNOTATED + number, (pseudo == number) & free)
        assert (after == ANNOTATED + number).any()
    near = np.zeros(SHAPE, bool)
    near[PART.slices] = ndimage.binary_dilation(arrays["pseudo"] > 0, iterations=2)
    np.testing.assert_array_equal(
        after == BACKGROUND, (before == BACKGROUND) | ((near | background) & free & (pseudo == 0))
    )
    assert (after[arrays["ignore"] > 0] == IGNORE).all()


def test_shells_of_pseudo_objects_can_be_left_out(arrays, taught):
    bare = everything(replace(taught, pseudo=replace(taught.pseudo, shell=(0, 0, 0))))
    full = everything(taught)
    assert ((full == BACKGROUND) & (bare == UNLABELLED)).any()
    np.testing.assert_array_equal(full > 0, bare > 0)


def test_nothing_is_said_outside_the_training_part(taught):
    before, after = everything(replace(taught, pseudo=None)), everything(taught)
    outside = np.ones(SHAPE, bool)
    outside[PART.slices] = False
    np.testing.assert_array_equal(after[outside], before[outside])


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_boxes_agree_with_the_whole(taught, data):
    start = triple(data.draw(st.integers(0, extent - 1)) for extent in SHAPE)
    stop = triple(data.draw(st.integers(a + 1, extent)) for a, extent in zip(start, SHAPE, strict=True))
    box = Box(start, stop)
    np.testing.assert_array_equal(taught.read(box), everything(taught)[box.slices])
