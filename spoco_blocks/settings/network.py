"""The section that says how large the network is."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from spoco_blocks.settings.base import Count, Section


class NetworkSize(NamedTuple):
    """Channels of the first level, levels, channels of the embedding."""

    width: int
    levels: int
    embedding_channels: int


PRESETS = {
    "tiny": NetworkSize(16, 3, 8),
    "base": NetworkSize(32, 4, 16),
    "large": NetworkSize(64, 5, 16),
}


class NetworkSettings(Section):
    """The embedding network: a residual 3D U-Net, its kernels and pooling planned from the voxel size."""

    preset: Literal["tiny", "base", "large"] = "tiny"
    """Size: tiny for CPUs and first trials (width 16, 3 levels, 8 embedding channels), base (32, 4, 16) and large
    (64, 5, 16) for GPUs and much data. The keys below replace single numbers of it."""
    width: Count | None = None
    """Channels of the first level; doubled at each further level."""
    levels: Annotated[int, Field(ge=1, le=6)] | None = None
    """Resolutions, the full one included."""
    embedding_channels: Annotated[int, Field(ge=3)] | None = None
    """Channels of the embedding."""
    affinities: bool = True
    """Also predict which neighbouring and distant voxels belong together; clustering kind mutex needs it."""

    @property
    def size(self) -> NetworkSize:
        """The preset's numbers, where none is given."""
        given = {name: getattr(self, name) for name in NetworkSize._fields}
        return PRESETS[self.preset]._replace(**{name: value for name, value in given.items() if value is not None})
