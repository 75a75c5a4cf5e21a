"""What holds for every clustering method."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from oracles import adjusted_rand_index

from bench.phantoms import make
from spoco_blocks.clustering import METHODS, Context, segment

SHAPES = [(14, 32, 32), (1, 72, 72)]


@pytest.fixture(scope="module", params=SHAPES, ids=["3d", "2d"])
def phantom(request):
    return make(request.param, 6, channels=8, seed=1)


@pytest.fixture(params=sorted(METHODS))
def method(request):
    chosen = METHODS[request.param]()
    if "max_samples" in {f.name for f in fields(chosen)}:
        chosen = replace(chosen, max_samples=1500)
    return chosen


def test_labels_are_dense_inside_the_foreground_and_repeatable(method, phantom):
    embeddings, foreground = phantom.embeddings.copy(), phantom.foreground
    labels = method(embeddings, foreground, Context())
    assert labels.dtype == np.uint32
    assert labels.shape == foreground.shape
    assert not labels[~foreground].any()
    np.testing.assert_array_equal(np.unique(labels), np.arange(labels.max() + 1))
    np.testing.assert_array_equal(embeddings, phantom.embeddings)
    np.testing.assert_array_equal(labels, method(embeddings, foreground, Context()))
    np.testing.assert_array_equal(labels, method(embeddings, foreground))


def test_objects_are_found(method, phantom):
    labels = segment(method, phantom.embeddings, phantom.foreground)
    assert phantom.objects >= 4
    # Well above chance: how good a method is says its own test and the benchmark.
    score = float(adjusted_rand_index(phantom.truth, labels, phantom.foreground))
    assert score > 0.5
    np.testing.assert_array_equal(np.unique(labels), np.arange(labels.max() + 1))


def test_half_and_single_precision_agree(method, phantom):
    single = phantom.embeddings.astype(np.float32)
    single += np.random.default_rng(0).uniform(-1e-4, 1e-4, single.shape).astype(np.float32)
    first = segment(method, phantom.embeddings, phantom.foreground)
    second = segment(method, single, phantom.foreground)
    assert adjusted_rand_index(first, second, phantom.foreground) > 0.98


def test_no_foreground_gives_no_labels(method, phantom):
    nothing = np.zeros_like(phantom.foreground)
    labels = segment(method, phantom.embeddings, nothing)
    assert labels.dtype == np.uint32
    assert not labels.any()


def test_a_few_voxels_of_foreground(method, phantom):
    few = np.zeros_like(phantom.foreground)
    few[0, :2, :2] = True
    labels = segment(method, phantom.embeddings, few)
    assert not labels[~few].any()


def test_names(method):
    assert METHODS[method.kind] is type(method)
    assert isinstance(method.fragments, bool)
    assert isinstance(hash(method), int)
