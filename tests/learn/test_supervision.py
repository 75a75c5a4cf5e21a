"""What is known of a voxel does not depend on the box it is read in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms import store
from scipy import ndimage

from spoco_blocks.grid import Box, triple
from spoco_blocks.learn.label_values import BACKGROUND, IGNORE, UNLABELLED
from spoco_blocks.learn.supervision import CUBE, Supervision, uniform_hash
from spoco_blocks.volumes import open_volume

SHAPE = (24, 30, 36)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("supervision")
    labels = np.zeros(SHAPE, np.uint32)
    labels[2:6, 2:6, 2:6], labels[8:12, 8:12, 3:9], labels[4:7, 20:24, 20:24] = 700, 3, 12
    mask = np.zeros(SHAPE, np.uint8)
    mask[20:, :, :5] = 1
    ignore = np.zeros(SHAPE, np.uint8)
    ignore[:, :2] = 1
    return [open_volume(store(folder / f"{name}.zarr", a)) for name, a in (("l", labels), ("b", mask), ("i", ignore))]


def supervision(volumes, **changes) -> Supervision:
    labels, _, _ = volumes
    defaults = {
        "labels": labels,
        "kept": np.array([3, 700], np.uint64),
        "region": Box.of_shape(SHAPE),
        "background": None,
        "ignore": None,
        "dense": False,
        "background_fraction": 0.0,
        "shell": (2, 2, 2),
        "seed": 0,
    }
    return Supervision(**(defaults | changes))


def whole(volumes, **changes):
    return supervision(volumes, **changes).read(Box.of_shape(SHAPE))


def test_objects_shell_and_dropped_objects(volumes):
    truth = volumes[0].read(Box.of_shape(SHAPE))
    known = whole(volumes)
    assert (known[truth == 3] == 1).all()
    assert (known[truth == 700] == 2).all()
    assert not (known[truth == 12] > 0).any()
    annotated = (truth == 3) | (truth == 700)
    shell = ndimage.binary_dilation(annotated, iterations=2) & ~annotated
    np.testing.assert_array_equal(known == BACKGROUND, shell)
    flat = whole(volumes, shell=(0, 2, 2)) == BACKGROUND
    assert flat.any()
    assert not flat[1, 2:6, 2:6].any()
    assert not (whole(volumes, shell=(0, 0, 0)) == BACKGROUND).any()


def test_dense_labels_make_everything_else_background(volumes):
    truth = volumes[0].read(Box.of_shape(SHAPE))
    known = whole(volumes, dense=True, shell=(0, 0, 0))
    np.testing.assert_array_equal(known == BACKGROUND, truth == 0)
    assert (known[truth == 12] == UNLABELLED).all()


def test_shell_leaves_objects_of_dense_labels_that_are_not_kept(volumes):
    truth = volumes[0].read(Box.of_shape(SHAPE))
    kept = np.array([3], np.uint64)
    sparse, dense = whole(volumes, kept=kept, shell=(6, 6, 6)), whole(volumes, kept=kept, shell=(6, 6, 6), dense=True)
    assert (sparse[truth == 700] == BACKGROUND).any()
    assert (dense[truth == 700] == UNLABELLED).all()
    np.testing.assert_array_equal(dense == BACKGROUND, truth == 0)


def test_dense_boxes_are_dense_and_the_rest_is_sparse(volumes):
    truth = volumes[0].read(Box.of_shape(SHAPE))
    boxes = Box((0, 10, 10), (12, 30, 30)), Box((20, 0, 0), (24, 5, 5))
    known, inside = whole(volumes, dense_boxes=boxes, shell=(0, 0, 0)), np.zeros(SHAPE, bool)
    for box in boxes:
        inside[box.slices] = True
    np.testing.assert_array_equal(known == BACKGROUND, inside & (truth == 0))
    assert (known[truth == 12] == UNLABELLED).all()
    assert (known[truth == 700] == 2).all()


def test_what_may_belong_to_a_partial_object_is_ignored(volumes):
    truth = volumes[0].read(Box.of_shape(SHAPE))
    annotated = (truth == 3) | (truth == 700)
    near = ndimage.binary_dilation(annotated, iterations=4) & ~annotated
    known = whole(volumes, shell=(0, 0, 0), margin=(4, 4, 4))
    np.testing.assert_array_equal(known == IGNORE, near)
    assert not (known == BACKGROUND).any()
    dense = np.zeros(SHAPE, bool)
    dense[:, :, 5:8] = True
    known = whole(volumes, shell=(0, 0, 0), margin=(4, 4, 4), dense_boxes=(Box((0, 0, 5), (24, 30, 8)),))
    np.testing.assert_array_equal(known == IGNORE, near & ~dense)
    np.testing.assert_array_equal(known == BACKGROUND, dense & (truth == 0))
    mask = volumes[1].read(Box.of_shape(SHAPE)) != 0
    known = whole(volumes, shell=(0, 0, 0), margin=(12, 12, 12), background=volumes[1])
    assert (known[mask] == BACKGROUND).all()


@pytest.mark.parametrize("reach", [(0, 2, 2), (1, 4, 4), (2, 3, 5)])
def test_margins_that_differ_between_axes_reach_as_far_as_they_say(volumes, reach):
    known = whole(volumes, kept=np.array([12], np.uint64), shell=(0, 0, 0), margin=reach) == IGNORE
    places = np.argwhere(known | (volumes[0].read(Box.of_shape(SHAPE)) == 12))
    np.testing.assert_array_equal(places.min(0), np.array((4, 20, 20)) - reach)
    np.testing.assert_array_equal(places.max(0) + 1, np.array((7, 24, 24)) + reach)


def test_objects_that_crops_cut_keep_their_number(volumes):
    made = supervision(volumes, region=Box((1, 0, 0), (20, 30, 36)))
    left, right = made.read(Box((8, 8, 0), (12, 12, 6))), made.read(Box((8, 8, 6), (12, 12, 12)))
    assert set(left[left > 0]) == set(right[right > 0]) == {1}
    assert set(np.unique(made.read(Box((2, 2, 2), (4, 3, 6))))) == {2}


def test_masks(volumes):
    _, background, ignore = volumes
    known = whole(volumes, background=background, ignore=ignore)
    assert (known[:, :2] == IGNORE).all()
    assert (known[20:, 2:, :5] == BACKGROUND).all()


def test_drawn_background_is_empty_and_about_as_much_as_asked(volumes):
    truth = volumes[0].read(Box.of_shape(SHAPE))
    known = whole(volumes, background_fraction=0.5, shell=(0, 0, 0))
    near = ndimage.binary_dilation(truth > 0, iterations=2)
    assert not (known[near] == BACKGROUND).any()
    every = whole(volumes, background_fraction=1.0, shell=(0, 0, 0)) == BACKGROUND
    some = known == BACKGROUND
    assert some.any()
    assert not (some & ~every).any()
    assert 0.2 < some.sum() / every.sum() < 0.8
    assert ((whole(volumes, background_fraction=0.5, shell=(0, 0, 0), seed=1) == BACKGROUND) != some).any()


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_boxes_agree_with_the_whole(volumes, data):
    region = Box((0, 1, 3), (22, 30, 31))
    made = supervision(
        volumes,
        background_fraction=data.draw(st.sampled_from([0.0, 0.4])),
        region=region,
        background=volumes[1],
        ignore=volumes[2],
        shell=data.draw(st.sampled_from([(2, 2, 2), (0, 2, 2), (1, 3, 2)])),
        margin=data.draw(st.sampled_from([(0, 0, 0), (5, 5, 5), (1, 4, 6)])),
        dense_boxes=data.draw(st.sampled_from([(), (Box((0, 0, 5), (9, 20, 8)), Box((3, 0, 0), (30, 40, 4)))])),
    )
    expected = made.read(region)
    start = triple(data.draw(st.integers(a, b - 1)) for a, b in zip(region.start, region.stop, strict=True))
    stop = triple(data.draw(st.integers(a + 1, b)) for a, b in zip(start, region.stop, strict=True))
    box = Box(start, stop)
    np.testing.assert_array_equal(made.read(box), expected[box.relative_to(region.start).slices])


def test_hash_is_uniform():
    z, y, x = np.indices((20, 20, 20))
    values = uniform_hash(3, z, y, x)
    assert 0 <= values.min() < values.max() < 1
    assert abs(values.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1]) < 0.05
    assert CUBE == 8


def test_background_of_independent_images_is_drawn_in_each(tmp_path):
    labels = np.zeros((9, 32, 32), np.uint32)
    labels[:, 4:12, 4:12] = 1
    labels[4] = 0
    uri = store(tmp_path / "n.zarr", labels)
    images = open_volume(uri, axes="nyx")
    made = Supervision(
        images, np.array([], np.uint64), Box.of_shape(labels.shape), None, None, False, 1.0, (0, 0, 0), 0
    )
    known = made.read(Box.of_shape(labels.shape)) == BACKGROUND
    assert known[4].all()
    assert not known[3, 2:14, 2:14].any()
    assert known[3, 16:, 16:].all()
