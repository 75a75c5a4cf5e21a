"""Exact stitching: how the volume is cut does not show."""

from __future__ import annotations

import numpy as np
import pytest

from bench.phantoms import make
from bench.shapes import shapes
from spoco_blocks.grid import Box
from spoco_blocks.volumes import open_volume

BLOCKS = {"one": (64, 64, 64), "eight": (24, 32, 32), "flat": (8, 48, 64), "long": (40, 16, 24)}


def written(uri):
    volume = open_volume(uri)
    return volume.read(Box.of_shape(volume.meta.shape))


def segmented(trained, name, shape, embeddings, foreground, **stitching):
    """Segment given embeddings in blocks of a shape."""

    def edit(results):
        everything = Box.of_shape(open_volume(results.foreground).meta.shape)
        place = tuple(slice(0, min(a, b)) for a, b in zip(foreground.shape, everything.shape, strict=True))
        given, inside = np.zeros((len(embeddings), *everything.shape), np.float16), np.zeros(everything.shape, np.uint8)
        given[:, *place], inside[place] = embeddings[:, *place], 255 * foreground[place]
        open_volume(results.embeddings).write(everything, given)
        open_volume(results.foreground).write(everything, inside)

    chosen = {
        "clustering": {"kind": "modes"},
        "blocks": {"shape_voxels": shape},
        "stitching": {"exact": True} | stitching,
    }
    return trained.segment(name, edit=edit, **chosen)


@pytest.mark.parametrize("kind", ["crowded", "thin"])
def test_the_partition_is_the_same_for_any_blocks(trained, kind):
    if kind == "crowded":
        phantom = make((40, 48, 64), 40, channels=4, variant="noisy", seed=0)
    else:
        phantom = shapes("mixed", 4, seed=1)
    found = {}
    for name, shape in BLOCKS.items():
        results = segmented(trained, f"exact-{kind}-{name}", shape, phantom.embeddings, phantom.foreground)
        found[name] = written(results.segments)
    assert found["one"].max() > 20
    for labels in found.values():
        np.testing.assert_array_equal(labels, found["one"])
