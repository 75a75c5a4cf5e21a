"""What decides the architecture of the network: kernels, pooling and outputs, planned from the voxel size.

Needs no PyTorch, so that stages that only ask for strides and halos start quickly and stay small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from spoco_blocks.grid import Triple, triple

# Voxels count as isotropic while no axis is coarser than the finest by more than this.
ISOTROPY = 1.5
# Voxels between the distant voxels that the affinity head compares.
REACHES = (3, 9)


@dataclass(frozen=True)
class NetworkPlan:
    """Everything that decides the architecture.

    Attributes
    ----------
    in_channels : int
        Channels of the raw data.
    embedding_channels : int
        Channels of the embedding; one more output is the foreground logit.
    offsets : tuple of tuple of int
        Offsets (z, y, x) to the voxels with which the affinity head compares each voxel, direct neighbours first; one
        more output for each. Empty = no such head.
    widths : tuple of int
        Channels of each level, finest first.
    kernels : tuple of tuple of int
        Convolution kernel (z, y, x) of each level.
    pools : tuple of tuple of int
        Pooling (z, y, x) between one level and the next.
    """

    in_channels: int
    embedding_channels: int
    offsets: tuple[Triple, ...]
    widths: tuple[int, ...]
    kernels: tuple[Triple, ...]
    pools: tuple[Triple, ...]

    @property
    def outputs(self) -> int:
        """Output channels: the embedding, the foreground logit, one affinity logit for each offset."""
        return self.embedding_channels + 1 + len(self.offsets)

    @property
    def neighbours(self) -> int:
        """How many of the offsets are direct neighbours; they come first."""
        return sum(sum(map(abs, offset)) == 1 for offset in self.offsets)

    @property
    def step(self) -> Triple:
        """Along each axis, every how many voxels one is clustered first: all of them where voxels are long."""
        return triple(1 if extent == 1 else 2 for extent in self.kernels[0])

    @property
    def reach(self) -> Triple:
        """The longest offset along each axis."""
        return triple(max((abs(offset[axis]) for offset in self.offsets), default=0) for axis in range(3))

    @property
    def stride(self) -> Triple:
        """Total stride; origins of blocks must be multiples of it."""
        return triple(prod(pool[axis] for pool in self.pools) for axis in range(3))

    @property
    def halo(self) -> Triple:
        """Margin (z, y, x) beyond which no input voxel can reach an output, rounded up to the stride.

        Notes
        -----
        Each level has two convolutions on the way down and two on the way up (the deepest only two), each reaching
        (k - 1) / 2 voxels of that level; a pooling window of p reaches p - 1 voxels of the level above.
        """
        radii = []
        for axis in range(3):
            radius, step = 0, 1
            for level, kernel in enumerate(self.kernels):
                convolutions = 2 if level == len(self.pools) else 4
                radius += convolutions * (kernel[axis] // 2) * step
                if level < len(self.pools):
                    radius += (self.pools[level][axis] - 1) * step
                    step *= self.pools[level][axis]
            radii.append(-(-radius // step) * step)
        return triple(radii)

    @property
    def mirrored_halo(self) -> Triple:
        """The same where mirror images are predicted too, whose affinities lie as far away as offsets are long."""
        return triple(-(-(h + r) // s) * s for h, r, s in zip(self.halo, self.reach, self.stride, strict=True))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> NetworkPlan:
        """Read the plan back from a checkpoint."""
        return cls(
            in_channels=int(data["in_channels"]),
            embedding_channels=int(data["embedding_channels"]),
            offsets=tuple(triple(o) for o in data["offsets"]),
            widths=tuple(int(w) for w in data["widths"]),
            kernels=tuple(triple(k) for k in data["kernels"]),
            pools=tuple(triple(p) for p in data["pools"]),
        )


def isotropic_axes(voxel_size_nm: Sequence[float], planar: bool) -> tuple[bool, bool, bool]:
    """Tell which axes (z, y, x) share the finest voxel size; never z when it counts independent images."""
    finest = min(voxel_size_nm[1:] if planar else voxel_size_nm)
    z, y, x = (size <= ISOTROPY * finest for size in voxel_size_nm)
    return z and not planar, y, x


def plan_network(
    voxel_size_nm: tuple[float, float, float],
    *,
    in_channels: int,
    embedding_channels: int,
    width: int,
    levels: int,
    affinities: bool,
    planar: bool,
) -> NetworkPlan:
    """Choose kernels and pooling from the voxel size, so that the deepest level sees isotropic voxels.

    Parameters
    ----------
    voxel_size_nm : tuple of float
        Voxel size along z, y, x in nm.
    in_channels, embedding_channels, width, levels : int
        See `NetworkSettings`.
    affinities : bool
        Whether to have an affinity head.
    planar : bool
        2D data: the first axis is never convolved nor pooled.
    """
    spacing = list(voxel_size_nm)
    kernels, pools = [], []
    for _ in range(levels):
        fine = isotropic_axes(spacing, planar)
        kernels.append(triple(3 if f else 1 for f in fine))
        pools.append(triple(2 if f else 1 for f in fine))
        spacing = [s * p for s, p in zip(spacing, pools[-1], strict=True)]
    return NetworkPlan(
        in_channels=in_channels,
        embedding_channels=embedding_channels,
        offsets=plan_offsets(kernels[0], planar) if affinities else (),
        widths=tuple(width * 2**level for level in range(levels)),
        kernels=tuple(kernels),
        pools=tuple(pools[:-1]),
    )


def plan_offsets(kernel: Triple, planar: bool) -> tuple[Triple, ...]:
    """Choose the pairs of voxels that the affinity head compares.

    Parameters
    ----------
    kernel : tuple of int
        Kernel of the finest level: 1 along axes whose voxels are coarse.
    planar : bool
        2D data: there is nothing to compare along the first axis.

    Notes
    -----
    Direct neighbours tell where objects hold together, distant voxels where they do not: a gap in a border is narrower
    than `REACHES`. Across coarse sections the next voxel is distant already. Diagonals, and 27 voxels in 2D, changed no
    score by more than noise.
    """
    axes = [axis for axis in range(3) if not (planar and axis == 0)]
    near = [triple(int(a == axis) for a in range(3)) for axis in axes]
    far = [triple(reach * (a == axis) for a in range(3)) for reach in REACHES for axis in axes if kernel[axis] > 1]
    return (*near, *far)
