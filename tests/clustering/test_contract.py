"""What holds for every clustering method."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from oracles import adjusted_rand_index

from bench.phantoms import make
from spoco_blocks.clustering import METHODS, Affinities, Context, Mutex, segment
from spoco_blocks.clustering.pieces import fill
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.output import Output, StoredOutput, int8_scale, quantised

SHAPES = [(14, 32, 32), (1, 72, 72)]


@pytest.fixture(scope="module", params=SHAPES, ids=["3d", "2d"])
def phantom(request):
    return make(request.param, 6, channels=8, seed=1)


NO_OUTPUT = StoredOutput(Source(uri="-"), Source(uri="-"), None, 8, 0)
OFFSETS = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 3, 0), (0, 0, 3)])


def context(phantom):
    """Give what a network with an affinity head would say of a phantom."""
    truth = phantom.truth
    values = np.zeros((len(OFFSETS), *truth.shape), np.uint8)
    for value, offset in zip(values, OFFSETS, strict=True):
        here = tuple(slice(0, n - d) for d, n in zip(offset, truth.shape, strict=True))
        there = tuple(slice(d, None) for d in offset)
        value[here] = 255 * ((truth[here] == truth[there]) & (truth[here] > 0))
    return Context(affinities=Affinities(values, OFFSETS, 3), other=phantom.embeddings[::-1])


@pytest.fixture(params=sorted(METHODS))
def method(request):
    chosen = METHODS[request.param]()
    if "max_samples" in {f.name for f in fields(chosen)}:
        chosen = replace(chosen, max_samples=1500)
    if request.param == "consistency":
        # The phantom's noise fills a ball of delta_var around a mean, so one around a voxel holds half of an object.
        chosen = replace(chosen, bandwidth=1.0)
    return chosen


def test_labels_are_dense_inside_the_foreground_and_repeatable(method, phantom):
    embeddings, foreground = phantom.embeddings.copy(), phantom.foreground
    labels = method(embeddings, foreground, context(phantom))
    assert labels.dtype == np.uint32
    assert labels.shape == foreground.shape
    assert not labels[~foreground].any()
    np.testing.assert_array_equal(np.unique(labels), np.arange(labels.max() + 1))
    np.testing.assert_array_equal(embeddings, phantom.embeddings)
    np.testing.assert_array_equal(labels, method(embeddings, foreground, context(phantom)))
    if method.kind not in ("mutex", "consistency"):
        np.testing.assert_array_equal(labels, method(embeddings, foreground))


def test_objects_are_found(method, phantom):
    labels = segment(method, phantom.embeddings, phantom.foreground, context(phantom))
    assert phantom.objects >= 4
    # Well above chance: how good a method is says its own test and the benchmark.
    score = float(adjusted_rand_index(phantom.truth, labels, phantom.foreground))
    assert score > 0.5
    np.testing.assert_array_equal(np.unique(labels), np.arange(labels.max() + 1))


def test_half_and_single_precision_agree(method, phantom):
    single = phantom.embeddings.astype(np.float32)
    single += np.random.default_rng(0).uniform(-1e-4, 1e-4, single.shape).astype(np.float32)
    first = segment(method, phantom.embeddings, phantom.foreground, context(phantom))
    second = segment(method, single, phantom.foreground, context(phantom))
    assert adjusted_rand_index(first, second, phantom.foreground) > 0.98


def test_int8_with_a_scale_for_each_channel_is_enough(method, phantom):
    """As stages read it: `Embedded` widens what is stored, so methods see float32."""
    wide = phantom.embeddings.astype(np.float32)
    scale = int8_scale(np.abs(wide).reshape(len(wide), -1).max(axis=1))
    source = Embedded(NO_OUTPUT, 0.5, None, scale)
    output = Output(quantised(wide, scale), (255 * phantom.foreground).astype(np.uint8), None)
    embeddings, foreground = source.understand(output)
    assert output.embeddings.dtype == np.int8
    first = segment(method, wide, foreground, context(phantom))
    second = segment(method, embeddings, foreground, context(phantom))
    # The sampled methods find other clusters where objects blend, which is much of so small a block.
    assert adjusted_rand_index(first, second, foreground) > 0.9


def test_no_foreground_gives_no_labels(method, phantom):
    nothing = np.zeros_like(phantom.foreground)
    labels = segment(method, phantom.embeddings, nothing, context(phantom))
    assert labels.dtype == np.uint32
    assert not labels.any()


def test_a_few_voxels_of_foreground(method, phantom):
    few = np.zeros_like(phantom.foreground)
    few[0, :2, :2] = True
    labels = segment(method, phantom.embeddings, few, context(phantom))
    assert not labels[~few].any()


def test_a_single_voxel(method, phantom):
    """Of the foreground, and the whole array: an object where objects may be as small, but never a density cluster."""
    least = {name: 1 for name in ("min_voxels", "min_core_voxels") if name in {f.name for f in fields(method)}}
    one = np.zeros_like(phantom.foreground)
    one[0, 3, 4] = True
    smallest = replace(method, **least)
    found = method.kind != "grid_hdbscan"
    np.testing.assert_array_equal(smallest(phantom.embeddings, one, context(phantom)), one & found)
    given = context(phantom)
    cut = (slice(None), slice(1), slice(1), slice(1))
    affinities = Affinities(given.affinities.values[cut], OFFSETS, 3)
    given = Context(affinities=affinities, other=given.other[cut])
    assert smallest(phantom.embeddings[cut], np.ones((1, 1, 1), bool), given).tolist() == [[[int(found)]]]


def test_names(method):
    assert METHODS[method.kind] is type(method)
    assert isinstance(method.fragments, bool)
    assert isinstance(hash(method), int)


def test_mutex_without_affinities_says_so(phantom):
    with pytest.raises(ValueError, match="needs affinities"):
        Mutex()(phantom.embeddings, phantom.foreground, Context())


def test_small_pieces_go_to_the_nearest_larger_one():
    labels = np.zeros((1, 4, 12), np.uint32)
    labels[:, :, :3], labels[:, :, 8:] = 1, 2
    foreground = np.ones(labels.shape, bool)
    foreground[:, 0, 4] = False
    filled = fill(labels, foreground, 2)
    assert filled[0, 1].tolist() == [1, 1, 1, 1, 1, 0, 2, 2, 2, 2, 2, 2]
    assert filled[0, 0, 4] == 0
    assert fill(labels, foreground, 0) is labels
    assert fill(np.zeros_like(labels), foreground, 2).max() == 0


@pytest.mark.parametrize(("settings", "smallest", "kept"), [
    (Mutex(), None, {72}), (Mutex(), 40, {72, 24}), (Mutex(), 60, {72}), (Mutex(min_voxels=10), 60, {72, 24}),
])  # fmt: skip
def test_pieces_are_small_by_the_size_of_annotated_objects(settings, smallest, kept):
    """Two slabs 12 voxels apart, one of 72 and one of 24 voxels."""
    truth = np.zeros((1, 24, 24), np.uint32)
    truth[0, 2:8, 2:14], truth[0, 20:22, 2:14] = 1, 2
    offsets = np.array([(0, 1, 0), (0, 0, 1)])
    values = np.full((2, *truth.shape), 255, np.uint8)
    given = Context(affinities=Affinities(values, offsets, 2), smallest_voxels=smallest)
    labels = settings(np.zeros((3, *truth.shape), np.float32), truth > 0, given)
    assert set(np.bincount(labels.ravel())[1:]) == kept


def test_what_touches_another_object_has_to_be_larger():
    """A slab of 24 voxels along one of 72, kept apart by affinities of 0 between them."""
    truth = np.zeros((1, 24, 24), np.uint32)
    truth[0, 2:8, 2:14], truth[0, 8:10, 2:14] = 1, 2
    values = np.full((3, *truth.shape), 255, np.uint8)
    values[0, 0, 7] = values[2, 0, 6:8] = 0
    affinities = Affinities(values, np.array([(0, 1, 0), (0, 0, 1), (0, 2, 0)]), 2)
    for smallest, kept in ((30, {72, 24}), (31, {72, 24}), (32, {96}), (48, {96})):
        given = Context(affinities=affinities, smallest_voxels=smallest)
        labels = Mutex()(np.zeros((3, *truth.shape), np.float32), truth > 0, given)
        assert set(np.bincount(labels.ravel())[1:]) == kept


def test_of_an_object_that_the_array_cuts_a_part_is_enough():
    truth = np.zeros((1, 24, 24), np.uint32)
    truth[0, 2:12, :6], truth[0, 2:12, 9:24] = 1, 2
    offsets = np.array([(0, 1, 0), (0, 0, 1)])
    affinities = Affinities(np.full((2, *truth.shape), 255, np.uint8), offsets, 2)

    def kept(before: bool, behind: bool, smallest=200):
        cut = ((False, False), (False, False), (before, behind))
        given = Context(affinities=affinities, smallest_voxels=smallest, cut=cut)
        labels = Mutex(max_fill_voxels=0)(np.zeros((3, *truth.shape), np.float32), truth > 0, given)
        return sorted(np.bincount(labels.ravel())[1:].tolist())

    assert kept(False, False) == [150]
    assert kept(False, True) == [150]
    assert kept(True, False) == [60, 150]
    assert kept(True, True, smallest=400) == [60, 150]
