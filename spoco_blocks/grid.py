"""Integer geometry: boxes, blocks and the grid that cuts a volume into them.

    outer  ┌───────────────┐      inner boxes tile the volume and are what a block writes;
           │  ┌─────────┐  │      outer = inner + halo, clipped at the volume's edge, is what it reads.
           │  │  inner  │  │
           │  └─────────┘  │
           └───────────────┘

All triples are z, y, x and count voxels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from operator import add, mul

from spoco_blocks.errors import GridError

Triple = tuple[int, int, int]


def triple(values: object) -> Triple:
    """Three Python integers from any iterable of three.

    Raises
    ------
    GridError
        When there are not exactly three values.
    """
    items = tuple(map(int, values))  # type: ignore[call-overload]
    if len(items) != 3:
        raise GridError(f"expected three values in the order z, y, x; got {len(items)}: {items}.")
    return items


@dataclass(frozen=True, order=True)
class Box:
    """A half-open box of voxels, ``start`` included and ``stop`` excluded."""

    start: Triple
    stop: Triple

    def __post_init__(self) -> None:
        (z0, y0, x0), (z1, y1, x1) = self.start, self.stop
        if z1 < z0 or y1 < y0 or x1 < x0:
            raise GridError(f"box ends before it starts: start {self.start}, stop {self.stop}.")

    @classmethod
    def of_shape(cls, shape: Triple) -> Box:
        """Give the box of a whole volume."""
        return cls((0, 0, 0), triple(shape))

    @property
    def shape(self) -> Triple:
        """Extent along z, y, x."""
        return triple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def size(self) -> int:
        """Number of voxels."""
        return prod(self.shape)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as an index into an array of the whole volume."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def relative_to(self, origin: Triple) -> Box:
        """Give the same box in a frame that starts at ``origin``."""
        return self.shifted(triple(-o for o in origin))

    def shifted(self, offset: Triple) -> Box:
        """Give the box moved by ``offset``."""
        return Box(
            triple(a + o for a, o in zip(self.start, offset, strict=True)),
            triple(b + o for b, o in zip(self.stop, offset, strict=True)),
        )

    def intersection(self, other: Box) -> Box:
        """Give the common part, an empty box where there is none."""
        start = triple(max(a, b) for a, b in zip(self.start, other.start, strict=True))
        stop = triple(min(a, b) for a, b in zip(self.stop, other.stop, strict=True))
        return Box(start, triple(max(a, b) for a, b in zip(start, stop, strict=True)))

    def grown(self, margin: Triple, within: Box) -> Box:
        """Give the box larger by ``margin`` on each side, clipped to ``within``."""
        start = triple(a - m for a, m in zip(self.start, margin, strict=True))
        stop = triple(b + m for b, m in zip(self.stop, margin, strict=True))
        return Box(start, stop).intersection(within)

    def contains(self, other: Box) -> bool:
        """Tell whether ``other`` lies inside."""
        return self.intersection(other) == other

    def __str__(self) -> str:
        return "[" + ", ".join(f"{a}:{b}" for a, b in zip(self.start, self.stop, strict=True)) + "]"


@dataclass(frozen=True)
class Block:
    """A unit of work: ``inner`` is what it writes, ``outer`` what it reads."""

    index: int
    inner: Box
    outer: Box

    @property
    def inner_local(self) -> Box:
        """The inner box in the frame of the outer one."""
        return self.inner.relative_to(self.outer.start)


@dataclass(frozen=True)
class BlockGrid:
    """Blocks that tile a volume, numbered in raster order.

    Parameters
    ----------
    shape : tuple of int
        The volume's shape.
    block_shape : tuple of int
        Shape of an inner box; smaller at the volume's far edges.
    halo : tuple of int
        Margin that is read around an inner box.
    alignment : tuple of int
        Outer boxes start at multiples of this, so that a network with strides sees the same phase in every block.
    """

    shape: Triple
    block_shape: Triple
    halo: Triple = (0, 0, 0)
    alignment: Triple = (1, 1, 1)

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or min(self.block_shape) < 1 or min(self.halo) < 0 or min(self.alignment) < 1:
            raise GridError(
                f"a grid needs positive shapes and no negative halo; got volume {self.shape}, block "
                f"{self.block_shape}, halo {self.halo}, alignment {self.alignment}."
            )
        for block, halo, align in zip(self.block_shape, self.halo, self.alignment, strict=True):
            if block % align or halo % align:
                raise GridError(
                    f"block shape {self.block_shape} and halo {self.halo} must be multiples of the alignment "
                    f"{self.alignment}; use {self.aligned(self.block_shape)} and {self.aligned(self.halo)}."
                )

    def aligned(self, extent: Triple) -> Triple:
        """Round ``extent`` up to a multiple of the alignment."""
        return triple(-(-e // a) * a for e, a in zip(extent, self.alignment, strict=True))

    @property
    def counts(self) -> Triple:
        """Number of blocks along z, y, x."""
        return triple(-(-s // b) for s, b in zip(self.shape, self.block_shape, strict=True))

    def __len__(self) -> int:
        return prod(self.counts)

    def __iter__(self) -> Iterator[Block]:
        return (self.block(i) for i in range(len(self)))

    def position(self, index: int) -> Triple:
        """Place of a block in the grid, counted in blocks."""
        _, ny, nx = self.counts
        return index // (ny * nx), index // nx % ny, index % nx

    def index(self, position: Triple) -> int:
        """Give the number of the block at a place in the grid."""
        _, ny, nx = self.counts
        return (position[0] * ny + position[1]) * nx + position[2]

    def block(self, index: int) -> Block:
        """Give one block.

        Raises
        ------
        GridError
            When there is no such block.
        """
        if not 0 <= index < len(self):
            raise GridError(f"no block {index}: the grid has blocks 0 to {len(self) - 1}.")
        # Millions of blocks pass here: plain integers, no boxes in between.
        start = triple(map(mul, self.position(index), self.block_shape))
        stop = triple(map(min, map(add, start, self.block_shape), self.shape))
        first = triple(max(0, a - h) for a, h in zip(start, self.halo, strict=True))
        last = triple(map(min, map(add, stop, self.halo), self.shape))
        return Block(index, Box(start, stop), Box(first, last))

    def shard(self, shard: int, shards: int) -> range:
        """Give the block numbers of one shard of work: contiguous, as equal as can be.

        Raises
        ------
        GridError
            When ``shard`` is not one of ``shards``.
        """
        if not 0 <= shard < shards:
            raise GridError(f"no shard {shard} of {shards}: expected 0 to {shards - 1}.")
        return range(len(self) * shard // shards, len(self) * (shard + 1) // shards)

    def touching(self, box: Box) -> list[int]:
        """Give the numbers of the blocks whose inner boxes share a voxel with ``box``."""
        if not box.size:
            return []
        clipped = box.intersection(Box.of_shape(self.shape))
        if not clipped.size:
            return []
        ranges = [
            range(a // s, (b - 1) // s + 1)
            for a, b, s in zip(clipped.start, clipped.stop, self.block_shape, strict=True)
        ]
        return [self.index(triple(position)) for position in product(*ranges)]
