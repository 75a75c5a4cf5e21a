"""HDBSCAN* on the voxel grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.clustering.centres import objects, without_largest
from spoco_blocks.clustering.checks import require_positive
from spoco_blocks.clustering.context import Context
from spoco_blocks.clustering.pieces import fill
from spoco_blocks.errors import SettingsError
from spoco_blocks.kernels.grid_hdbscan import grid_hdbscan


@dataclass(frozen=True)
class GridHdbscan:
    """Density clusters of all voxels, in which a voxel's neighbours are those beside it.

    Notes
    -----
    HDBSCAN* (Campello, Moulavi and Sander, PAKDD 2013) compares every voxel with every other one. Objects are connected
    in space, so here it is given the voxel grid for a graph: no sample, no means, and far apart objects may share their
    embeddings. Borders are sparse, so they are noise, and go to the object nearby; a chain of near neighbours through a
    border that is missing joins two objects, as in every single linkage.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    fragments: ClassVar[bool] = False

    kind: Literal["grid_hdbscan"] = "grid_hdbscan"
    """Name of the method."""
    min_cluster_size: int = 50
    """A cluster has at least this many voxels."""
    min_samples: int = 5
    """A voxel is as dense as so many of its six neighbours are near."""
    cluster_selection_epsilon: float = 0.0
    """Clusters that part below this distance of neighbours are not parted."""
    outer_distance: float = 1.0
    """Neighbours farther apart than this are never linked; twice the loss's delta_var, how far apart voxels of one
    object are at most."""
    max_fill_voxels: int = 8
    """Noise within so many voxels of a cluster joins the nearest one, the rest becomes background."""
    largest_is_background: bool = False
    """Whether the largest cluster of an array is background: where no foreground is known (foreground_threshold 0)."""
    min_voxels: int = 50
    """Smaller objects become background."""

    def __post_init__(self) -> None:
        require_positive(self, "min_samples", "outer_distance")
        require_positive(self, "cluster_selection_epsilon", "max_fill_voxels", "min_voxels", zero=True)
        if self.min_cluster_size < 2:
            raise SettingsError(f"min_cluster_size must be 2 or more; got {self.min_cluster_size}.")

    def __call__(
        self, embeddings: NDArray[Any], foreground: NDArray[np.bool_], context: Context | None = None
    ) -> NDArray[np.uint32]:
        """Label the objects of one array; see `Method`."""
        clusters = grid_hdbscan(
            embeddings,
            foreground,
            min_cluster_size=self.min_cluster_size,
            min_samples=self.min_samples,
            epsilon=self.cluster_selection_epsilon,
            outer_distance=self.outer_distance,
        )
        clusters = fill(clusters, foreground, self.max_fill_voxels)
        if self.largest_is_background:
            clusters = without_largest(clusters)
        return objects(clusters, connected=True, min_voxels=self.min_voxels)
