"""Cutting an array into patches of one shape, of which the parts to keep tile what is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod

from spoco_blocks.grid import Box, Triple, triple

# More than any array has along an axis, and a multiple of every stride.
UNLIMITED = 2**40


@dataclass(frozen=True)
class Patch:
    """A part of an array that goes through the network.

    Attributes
    ----------
    outer : Box
        What the network sees; may end beyond the array, where its last voxel is repeated.
    kept : Box
        What is kept of it, in the frame of the array.
    """

    outer: Box
    kept: Box


@dataclass(frozen=True)
class Patching:
    """How an array is cut.

    Parameters
    ----------
    shape : tuple of int
        Of the array.
    keep : Box
        The part that is asked for.
    limit : tuple of int
        A patch is at most this and a halo on each side; rounded up to the stride.
    halo, stride : tuple of int
        Of the network.

    Notes
    -----
    All patches have the same shape, so that any of them share a batch: they move inwards at the array's ends, where
    no halo is needed, rather than being clipped. The same number of patches is made as small as it can be.
    """

    shape: Triple
    keep: Box
    limit: Triple
    halo: Triple
    stride: Triple

    @property
    def patch_shape(self) -> Triple:
        """Shape of every patch, a multiple of the stride."""
        return triple(self._axis(axis)[1] for axis in range(3))

    @property
    def step(self) -> Triple:
        """What a patch has beyond its halo; not positive along axes that hold no more than that."""
        return triple(size - 2 * halo for size, halo in zip(self.patch_shape, self.halo, strict=True))

    def __len__(self) -> int:
        return prod(len(self._axis(axis)[0]) for axis in range(3))

    @property
    def patches(self) -> list[Patch]:
        """All patches, in raster order."""
        axes = [self._cut(axis) for axis in range(3)]
        return [
            Patch(
                Box(triple(p[0] for p in place), triple(p[1] for p in place)),
                Box(triple(p[2] for p in place), triple(p[3] for p in place)),
            )
            for place in product(*axes)
        ]

    def halved(self) -> Triple | None:
        """Give the limit under which patches are half as long along their longest axis; None = no axis can be cut."""
        axis = max(range(3), key=lambda axis: self.step[axis] - self.stride[axis])
        step, stride = self.step[axis], self.stride[axis]
        if step <= stride:
            return None
        half = -(-step // (2 * stride)) * stride
        return triple(half if a == axis else limit for a, limit in enumerate(self.limit))

    def _axis(self, axis: int) -> tuple[list[int], int]:
        """Give the starts of the patches along an axis, and their extent."""
        halo, stride = self.halo[axis], self.stride[axis]
        start = max(0, self.keep.start[axis] - halo) // stride * stride
        # The array as padded, of which a patch sees nothing that no kept voxel sees.
        stop = -(-min(self.shape[axis], self.keep.stop[axis] + halo) // stride) * stride
        limit = -(-self.limit[axis] // stride) * stride
        if stop - start <= limit + 2 * halo:
            return [start], stop - start
        extent = stop - start - 2 * halo
        count = -(-extent // limit)
        step = -(-extent // (count * stride)) * stride
        size = step + 2 * halo
        return [min(start + i * step, stop - size) for i in range(count)], size

    def _cut(self, axis: int) -> list[tuple[int, int, int, int]]:
        """Give start and stop of each patch along an axis, and of what is kept of it."""
        starts, size = self._axis(axis)
        cuts = [self.keep.start[axis], *(s + self.halo[axis] for s in starts[1:]), self.keep.stop[axis]]
        return [(s, s + size, a, b) for s, a, b in zip(starts, cuts[:-1], cuts[1:], strict=True)]
