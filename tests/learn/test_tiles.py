"""Only what crops touch is read, once, in whole chunks, and memory for it is bounded."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from spoco_blocks.grid import BlockGrid, Box, triple
from spoco_blocks.learn.crops import CHUNK_VOXELS, TrainingVolume, tile_shape
from spoco_blocks.learn.intensity import Normalisation
from spoco_blocks.learn.supervision import Supervision
from spoco_blocks.volumes import VolumeMeta

HUGE = (100_000, 200_000, 300_000)


@dataclass
class Endless:
    """A volume far too large to load, that keeps account of what is read of it."""

    meta: VolumeMeta
    value: int = 0
    uri: str = "endless"
    boxes: list[Box] = field(default_factory=list)

    def read(self, box: Box) -> np.ndarray:
        self.boxes.append(box)
        return np.full(box.shape, self.value, self.meta.dtype)

    def write(self, box: Box, voxels: np.ndarray) -> None:
        raise AssertionError("training must not write")


def meta(chunk=(64, 64, 64), dtype="uint8", axes="zyx", shape=HUGE) -> VolumeMeta:
    return VolumeMeta(shape, np.dtype(dtype), axes, None, (1.0, 1.0, 1.0), chunk, chunk)


def volume(chunk=(64, 64, 64), zoom=(1.0, 1.0, 1.0), **settings) -> tuple[TrainingVolume, Endless, Endless]:
    raw, labels = Endless(meta(chunk), 5), Endless(meta(chunk, "uint32"), 7)
    known = Supervision(labels, np.array([7], np.uint64), Box.of_shape(HUGE), None, None, False, 0.0, (2, 2, 2), 0)
    return TrainingVolume(raw, Normalisation((0.0,), (10.0,)), known, {}, zoom, **settings), raw, labels


@pytest.mark.parametrize("zoom", [(1.0, 1.0, 1.0), (0.5, 0.5, 2.0)])
def test_only_tiles_that_crops_touch_are_read_and_once(zoom):
    made, raw, labels = volume(zoom=zoom)
    rng, touched = np.random.default_rng(0), set()
    grid = BlockGrid(HUGE, tile_shape(raw))
    for _ in range(5):
        box = made.draw((16, 24, 24), 0.5, rng, made.resampling.inside(Box.of_shape(HUGE)))
        first, again = made.read(box), made.read(box)
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert (first[1] == 1).all()
        touched |= set(grid.touching(made.resampling.stored(box)))
    assert sorted(raw.boxes) == sorted(grid.block(index).inner for index in touched)
    for tile, box in zip(raw.boxes, labels.boxes, strict=True):
        assert box == tile.grown((2, 2, 2), Box.of_shape(HUGE))


def test_memory_is_bounded_and_what_was_used_last_stays():
    tile = 64**3 * 5
    made, raw, _ = volume(cache_bytes=3 * tile + 1)
    boxes = [Box(triple((0, 0, 64 * i)), triple((8, 8, 64 * i + 8))) for i in range(4)]
    for box in (*boxes[:3], boxes[0], boxes[3]):
        made.read(box)
        assert made.cached_bytes <= made.cache_bytes
    assert made.cached_bytes == 3 * tile
    before = len(raw.boxes)
    made.read(boxes[0])
    assert len(raw.boxes) == before
    made.read(boxes[1])
    assert len(raw.boxes) == before + 1


@pytest.mark.parametrize(
    ("chunk", "axes", "expected"),
    [
        ((32, 32, 32), "zyx", (64, 64, 64)),
        ((64, 64, 64), "zyx", (64, 64, 64)),
        ((48, 40, 64), "zyx", (48, 40, 64)),
        ((128, 128, 128), "zyx", (128, 128, 128)),
        ((1, 1024, 1024), "zyx", (4, 1024, 1024)),
        ((16, 256, 256), "zyx", (64, 256, 256)),
        ((512, 512, 512), "zyx", (64, 64, 64)),
        ((1, 1, 300_000), "zyx", (1, 13, 300_000)),
        ((1, 512, 512), "nyx", (1, 512, 512)),
        ((1, 100, 100), "nyx", (1, 200, 200)),
    ],
)
def test_tiles_are_whole_chunks_as_far_as_memory_allows(chunk, axes, expected):
    raw = Endless(meta(chunk, axes=axes))
    assert tile_shape(raw) == expected
    if np.prod(chunk) <= CHUNK_VOXELS:
        assert all(tile % c == 0 for tile, c in zip(expected, chunk, strict=True))
        assert np.prod(expected) <= CHUNK_VOXELS


def test_a_chunk_as_large_as_the_volume_is_one_tile():
    shape = (10, 50, 60)
    assert tile_shape(Endless(replace(meta((64, 64, 64)), shape=shape))) == shape
