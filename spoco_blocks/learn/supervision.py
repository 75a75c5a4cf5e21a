"""What is known of each voxel of a training volume, read box by box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.grid import Box, Triple, triple
from spoco_blocks.learn.label_values import BACKGROUND, IGNORE, UNLABELLED
from spoco_blocks.volumes import Volume, read_instances

if TYPE_CHECKING:
    from spoco_blocks.learn.pseudo import PseudoLabels

# Edge of the cubes in which background is drawn, and how far objects must be from one, in voxels.
CUBE, CLEARANCE = 8, 2


@dataclass(frozen=True)
class Supervision:
    """The annotations of one volume.

    Attributes
    ----------
    labels : Volume
        The label volume.
    kept : (k,) uint64
        Ids of the objects that count as annotated, sorted; object i becomes i + 1.
    region : Box
        The annotated region; nothing outside is read.
    background, ignore : Volume or None
        Masks of known background and of voxels without any loss.
    dense : bool
        Whether the whole region is a dense box.
    background_fraction : float
        Fraction of the clearly empty cubes that counts as background.
    shell : tuple of int
        Voxels (z, y, x) outside an object that count as background.
    seed : int
        Seed of the draw of cubes.
    dense_boxes : tuple of Box
        Boxes in which every object is labelled: inside, 0 means background.
    margin : tuple of int
        Voxels (z, y, x) around an object that may belong to it: not labelled, they are ignored. All 0 where objects are
        annotated as a whole.
    pseudo : PseudoLabels or None
        What fills unlabelled voxels; its objects are numbered after the annotated ones.

    Notes
    -----
    The first line that holds for a voxel decides:

    1. in the `ignore` mask: ignore;
    2. in a kept object: that object;
    3. in a dense box: background where no object is labelled, else (an object that is not kept) unlabelled;
    4. within `shell` of a kept object: background;
    5. in the `background` mask, or in a drawn cube: background;
    6. within `margin` of a kept object: ignore;
    7. what `pseudo` says of it;
    8. unlabelled.

    Distances are counted in face steps, scaled where they differ between axes. The answer for a voxel does not depend
    on the box it is read in: what is near is read along.
    """

    labels: Volume
    kept: NDArray[np.uint64]
    region: Box
    background: Volume | None
    ignore: Volume | None
    dense: bool
    background_fraction: float
    shell: Triple
    seed: int
    dense_boxes: tuple[Box, ...] = ()
    margin: Triple = (0, 0, 0)
    pseudo: PseudoLabels | None = None

    def read(self, box: Box) -> NDArray[np.int32]:
        """Read a box: (z, y, x) int32, > 0 objects, 0 unlabelled, -1 background, -2 ignore."""
        cubes = bool(self.background_fraction)
        reaches = (self.shell, self.margin, self._clearance if cubes else (0, 0, 0))
        reach = triple(max(of_axis) for of_axis in zip(*reaches, strict=True))
        wide = (self._whole_cubes(box) if cubes else box).grown(reach, self.region)
        ids = read_instances(self.labels, wide)
        known = number_objects(ids, self.kept)
        objects, dense = known > 0, self._dense(wide)
        known[dense & (ids == 0)] = BACKGROUND
        known[near(objects, self.shell) & (known == UNLABELLED) & ~dense] = BACKGROUND
        if cubes:
            known[(known == UNLABELLED) & self._empty_cubes(ids != 0, wide)] = BACKGROUND
        if self.background is not None:
            known[(known == UNLABELLED) & ~dense & (self.background.read(wide) != 0)] = BACKGROUND
        if any(self.margin):
            known[near(objects, self.margin) & (known == UNLABELLED) & ~dense] = IGNORE
        if self.ignore is not None:
            known[self.ignore.read(wide) != 0] = IGNORE
        if self.pseudo is not None:
            self.pseudo.add_to(known, wide, len(self.kept))
        return known[box.relative_to(wide.start).slices]

    def _dense(self, wide: Box) -> NDArray[np.bool_]:
        dense = np.full(wide.shape, self.dense)
        for box in self.dense_boxes:
            dense[box.intersection(wide).relative_to(wide.start).slices] = True
        return dense

    @property
    def _cube(self) -> Triple:
        return (1, CUBE, CUBE) if self.labels.meta.independent_images else (CUBE, CUBE, CUBE)

    @property
    def _clearance(self) -> Triple:
        return (0, CLEARANCE, CLEARANCE) if self.labels.meta.independent_images else (CLEARANCE,) * 3

    def _whole_cubes(self, box: Box) -> Box:
        start = triple(a // c * c for a, c in zip(box.start, self._cube, strict=True))
        stop = triple(-(-b // c) * c for b, c in zip(box.stop, self._cube, strict=True))
        return Box(start, stop).intersection(self.region)

    def _empty_cubes(self, occupied: NDArray[np.bool_], wide: Box) -> NDArray[np.bool_]:
        taken = near(occupied, self._clearance)
        cubes = [np.arange(a, b) // c for a, b, c in zip(wide.start, wide.stop, self._cube, strict=True)]
        starts = [np.flatnonzero(np.diff(c, prepend=-1)) for c in cubes]
        blocked: NDArray[Any] = taken
        for axis, start in enumerate(starts):
            blocked = np.logical_or.reduceat(blocked, start, axis)
        z, y, x = np.meshgrid(*[np.unique(c) for c in cubes], indexing="ij")
        chosen = ~blocked & (uniform_hash(self.seed, z, y, x) < self.background_fraction)
        index = np.ix_(*[np.unique(c, return_inverse=True)[1] for c in cubes])
        return np.asarray(chosen[index])


def number_objects(ids: NDArray[np.uint64], kept: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Number kept ids 1..k and everything else 0."""
    if not len(kept):
        return np.zeros(ids.shape, np.int32)
    place = np.searchsorted(kept, ids).clip(max=len(kept) - 1)
    return np.where((kept[place] == ids) & (ids > 0), place + 1, UNLABELLED).astype(np.int32)


def uniform_hash(seed: int, z: NDArray[Any], y: NDArray[Any], x: NDArray[Any]) -> NDArray[np.float64]:
    """Give a number in [0, 1) for each position: the same whatever box it is asked for in (splitmix64)."""
    state = np.full(z.shape, seed, np.uint64)
    with np.errstate(over="ignore"):
        for part in (z, y, x):
            state = (state ^ part.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state ^= state >> np.uint64(31)
    return np.asarray((state >> np.uint64(11)).astype(np.float64) / 2.0**53)


def near(mask: NDArray[np.bool_], radius: Triple) -> NDArray[np.bool_]:
    """Tell which voxels are in the mask or within a number of face steps of it, which differs between axes.

    Notes
    -----
    As many steps as the largest radius; an axis with a smaller one takes part in as many of them, evenly spread.
    """
    reached, steps = mask.copy(), max(radius)
    for step in range(steps):
        before = reached.copy()
        for axis, reach in enumerate(radius):
            if reach * (step + 1) // steps > reach * step // steps:
                grown, source = np.moveaxis(reached, axis, 0), np.moveaxis(before, axis, 0)
                grown[1:] |= source[:-1]
                grown[:-1] |= source[1:]
    return reached
