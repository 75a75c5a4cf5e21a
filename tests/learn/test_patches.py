"""Patches tile what is asked for, and each sees all that its part depends on."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spoco_blocks.grid import Box, triple
from spoco_blocks.learn.patches import UNLIMITED, Patching


@st.composite
def patchings(draw) -> Patching:
    shape = triple(draw(st.integers(1, 40)) for _ in range(3))
    start = triple(draw(st.integers(0, s - 1)) for s in shape)
    stop = triple(draw(st.integers(a + 1, s)) for a, s in zip(start, shape, strict=True))
    stride = triple(draw(st.sampled_from([1, 2, 4, 8])) for _ in range(3))
    halo = triple(s * draw(st.integers(0, 2)) for s in stride)
    limit = triple(draw(st.one_of(st.integers(1, 50), st.just(UNLIMITED))) for _ in range(3))
    return Patching(shape, Box(start, stop), limit, halo, stride)


@given(patchings())
def test_patches_tile_what_is_asked_for_and_see_enough(patching):
    seen = np.zeros(patching.shape, np.uint8)
    padded = Box.of_shape(triple(-(-s // t) * t for s, t in zip(patching.shape, patching.stride, strict=True)))
    patches = patching.patches
    for patch in patches:
        assert patch.kept.size
        seen[patch.kept.slices] += 1
        assert patch.outer.shape == patching.patch_shape
        assert not any(a % s for a, s in zip((*patch.outer.start, *patch.outer.stop), 2 * patching.stride, strict=True))
        assert padded.contains(patch.outer)
        assert patch.outer.contains(patch.kept.grown(patching.halo, Box.of_shape(patching.shape)))
    expected = np.zeros(patching.shape, np.uint8)
    expected[patching.keep.slices] = 1
    np.testing.assert_array_equal(seen, expected)
    assert len(patches) == len(patching)
    if len(patching) > 1:
        allowed = [-(-limit // s) * s for limit, s in zip(patching.limit, patching.stride, strict=True)]
        assert all(step <= limit for step, limit in zip(patching.step, allowed, strict=True))


@given(patchings())
def test_halving_ends_with_a_patch_of_one_stride_beyond_the_halo(patching):
    sizes = []
    while (limit := patching.halved()) is not None:
        sizes.append(np.prod(patching.patch_shape))
        patching = Patching(patching.shape, patching.keep, limit, patching.halo, patching.stride)
        assert np.prod(patching.patch_shape) < sizes[-1]
    assert all(step <= stride for step, stride in zip(patching.step, patching.stride, strict=True))
