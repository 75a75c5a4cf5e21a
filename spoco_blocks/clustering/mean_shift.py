"""Mean shift on a sample: the clustering of the SPOCO paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.clustering.centres import nearest_centres, objects, without_largest
from spoco_blocks.clustering.checks import require_positive
from spoco_blocks.clustering.context import Context
from spoco_blocks.clustering.modes import draw
from spoco_blocks.kernels.mean_shift import mean_shift


@dataclass(frozen=True)
class MeanShift:
    """Flat-kernel mean shift with binned seeds on sampled voxels; every voxel takes its nearest centre.

    Notes
    -----
    The clustering of the SPOCO paper. It knows no borders: where embeddings blend between two objects it finds clusters
    of their own.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    fragments: ClassVar[bool] = False

    kind: Literal["mean_shift"] = "mean_shift"
    """Name of the method."""
    bandwidth: float = 0.5
    """Radius of the kernel; the loss's delta_var."""
    max_samples: int = 20000
    """Foreground voxels drawn to find the centres."""
    min_bin_samples: int = 5
    """Searches start in cells of the bandwidth's width that hold at least this many samples."""
    max_distance: float | None = None
    """Voxels farther than this from every centre become background; null = none do."""
    largest_is_background: bool = False
    """Whether the largest cluster of an array is background: where no foreground is known (foreground_threshold 0)."""
    connected: bool = True
    """Whether every connected component is an object of its own."""
    min_voxels: int = 50
    """Smaller objects become background."""

    def __post_init__(self) -> None:
        require_positive(self, "bandwidth", "max_samples", "min_bin_samples", "max_distance")
        require_positive(self, "min_voxels", zero=True)

    def __call__(
        self, embeddings: NDArray[Any], foreground: NDArray[np.bool_], context: Context | None = None
    ) -> NDArray[np.uint32]:
        """Label the objects of one array; see `Method`."""
        centres = sampled_centres(
            embeddings, foreground, context, self.bandwidth, self.max_samples, self.min_bin_samples
        )
        clusters = nearest_centres(
            embeddings, foreground, centres, np.inf if self.max_distance is None else self.max_distance
        )
        if self.largest_is_background:
            clusters = without_largest(clusters)
        return objects(clusters, connected=self.connected, min_voxels=self.min_voxels)


def sampled_centres(
    embeddings: NDArray[Any],
    foreground: NDArray[np.bool_],
    context: Context | None,
    bandwidth: float,
    max_samples: int,
    min_bin_samples: int,
) -> NDArray[np.float32]:
    """Find the centres of clusters by mean shift on a sample of the foreground.

    Parameters
    ----------
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        The embedding of every voxel.
    foreground : ndarray of bool, shape (z, y, x)
        The voxels to draw from.
    context : Context or None
        Says the seed.
    bandwidth : float
        Radius of the kernel.
    max_samples : int
        Voxels to draw at most.
    min_bin_samples : int
        Searches start in cells of the bandwidth's width that hold at least this many samples.

    Returns
    -------
    ndarray of float32, shape (k, c)
        The centres, by falling number of samples around them.
    """
    samples = draw(embeddings, np.flatnonzero(foreground), max_samples, (context or Context()).seed)
    # With few samples a cell that holds some is rare.
    return mean_shift(samples, bandwidth, min(min_bin_samples, 1 + len(samples) // 1000))
