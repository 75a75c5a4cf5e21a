"""Which part of a volume the report shows, and how finely: whole where it fits, else a box around a centre."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.grid import Box, Triple, triple
from spoco_blocks.volumes import Volume

SHOWN_VOXELS = 1 << 21
"""What one layer of the page may hold; a page is a few MB."""
READ_VOXELS = 1 << 25
"""What may be read of one volume, whatever its size."""

_SLAB_VALUES = 1 << 24
_MOST_SLICES, _MOST_PIXELS = 96, 320
_MOST_PIXELS_FLAT = 1024
_MOST_IMAGES, _FEWEST_IMAGES = 24, 4
_COARSEST = 4
_PIXELS_OF_AN_OBJECT = 16


@dataclass(frozen=True)
class Subject:
    """What decides the choice.

    Attributes
    ----------
    shape : tuple of int
        The volume's.
    voxel_size : tuple of float
        In any unit.
    independent_images : bool
        Whether the first axis counts images.
    object_extent : tuple of float
        Median extent of the objects along z, y, x, in voxels.
    centre : tuple of int
        What to show when not everything fits.
    """

    shape: Triple
    voxel_size: tuple[float, float, float]
    independent_images: bool
    object_extent: tuple[float, float, float]
    centre: Triple


def choose(subject: Subject) -> tuple[Box, Triple]:
    """Give the box to show and the step between displayed voxels along z, y, x."""
    shape = subject.shape
    step = _coarsest_step(subject)
    for candidate in _steps(step):
        shown = _shown(shape, candidate)
        if subject.independent_images:
            shown = triple((min(shown[0], _FEWEST_IMAGES), *shown[1:]))
        if _fits(shown, _most(subject)):
            return _whole(subject, candidate)
    shown = _physical_box(subject, step)
    extent = triple(min(n * s, v) for n, s, v in zip(shown, step, shape, strict=True))
    start = triple(min(max(0, c - e // 2), v - e) for c, e, v in zip(subject.centre, extent, shape, strict=True))
    box = Box(start, triple(a + e for a, e in zip(start, extent, strict=True)))
    if subject.independent_images:
        return _spread_images(box, shape, step, shown)
    return box, step


def read_strided(volume: Volume, box: Box, step: Triple) -> NDArray[np.generic]:
    """Read every `step`-th voxel of a box, slab by slab, so that never much more than the result is in memory."""
    values = box.shape[1] * box.shape[2] * (volume.meta.channels or 1)
    depth = max(1, _SLAB_VALUES // max(1, values)) // step[0] * step[0]
    if depth == 0 or volume.meta.independent_images:
        ranges = [(z, z + 1) for z in range(box.start[0], box.stop[0], step[0])]
    else:
        ranges = [(z, min(z + depth, box.stop[0])) for z in range(box.start[0], box.stop[0], depth)]
    (_, y0, x0), (_, y1, x1) = box.start, box.stop
    slabs = [volume.read(Box((a, y0, x0), (b, y1, x1)))[..., :: step[0], :: step[1], :: step[2]] for a, b in ranges]
    return np.concatenate(slabs, axis=-3)


def _most(subject: Subject) -> Triple:
    flat = subject.independent_images or subject.shape[0] == 1
    pixels = _MOST_PIXELS_FLAT if flat else _MOST_PIXELS
    return (_MOST_IMAGES if flat else _MOST_SLICES, pixels, pixels)


def _coarsest_step(subject: Subject) -> Triple:
    """Give the largest step at which an object still is large enough to look at."""
    z, y, x = (max(1, min(_COARSEST, int(e // _PIXELS_OF_AN_OBJECT))) for e in subject.object_extent)
    in_plane = min(y, x)
    z = 1 if subject.independent_images or subject.shape[0] == 1 else z
    while SHOWN_VOXELS * z * in_plane**2 > READ_VOXELS:
        z, in_plane = max(1, z - 1), in_plane - 1 if in_plane > 1 else 1
    return z, in_plane, in_plane


def _steps(coarsest: Triple) -> list[Triple]:
    pairs = product(range(1, coarsest[0] + 1), range(1, coarsest[1] + 1))
    return [(z, y, y) for z, y in sorted(pairs, key=lambda pair: (pair[0] * pair[1] ** 2, pair))]


def _shown(shape: Triple, step: Triple) -> Triple:
    return triple(-(-n // s) for n, s in zip(shape, step, strict=True))


def _fits(shown: Triple, most: Triple) -> bool:
    return all(n <= m for n, m in zip(shown, most, strict=True)) and int(np.prod(shown)) <= SHOWN_VOXELS


def _whole(subject: Subject, step: Triple) -> tuple[Box, Triple]:
    box = Box.of_shape(subject.shape)
    if subject.independent_images:
        return _spread_images(box, subject.shape, step, _shown(subject.shape, step))
    return box, step


def _spread_images(box: Box, shape: Triple, step: Triple, shown: Triple) -> tuple[Box, Triple]:
    """Take as many images as the page can hold, spread evenly over all."""
    room = max(1, SHOWN_VOXELS // (shown[1] * shown[2]))
    every = -(-shape[0] // min(room, _MOST_IMAGES, shape[0]))
    return Box((0, *box.start[1:]), (shape[0], *box.stop[1:])), (every, *step[1:])


def _physical_box(subject: Subject, step: Triple) -> Triple:
    """Give the displayed shape nearest to a cube in space that the page can hold."""
    limits = triple(min(n, m) for n, m in zip(_shown(subject.shape, step), _most(subject), strict=True))
    if subject.independent_images:
        limits = triple((1, *limits[1:]))
    pixel = [v * s for v, s in zip(subject.voxel_size, step, strict=True)]
    side = max(n * p for n, p in zip(limits, pixel, strict=True))
    while True:
        shown = triple(max(1, min(n, int(side / p))) for n, p in zip(limits, pixel, strict=True))
        if int(np.prod(shown)) <= SHOWN_VOXELS:
            return shown
        side *= 0.97
