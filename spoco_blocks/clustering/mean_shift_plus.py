"""Mean shift whose clusters are joined where the loss would not have pushed them apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.clustering.centres import nearest_centres, objects, without_largest
from spoco_blocks.clustering.checks import require_positive
from spoco_blocks.clustering.context import Context
from spoco_blocks.clustering.mean_shift import sampled_centres
from spoco_blocks.kernels.lookup import apply_lookup
from spoco_blocks.kernels.regions import region_statistics


@dataclass(frozen=True)
class MeanShiftPlus:
    """Mean shift, then each cluster whose mean lies near that of a larger one joins it.

    Notes
    -----
    From the published code of the SPOCO paper (there ``cluster_ms_plus``). What mean shift splits because an object's
    embeddings spread wider than the kernel comes together again.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    fragments: ClassVar[bool] = False

    kind: Literal["mean_shift_plus"] = "mean_shift_plus"
    """Name of the method."""
    bandwidth: float = 0.5
    """Radius of the kernel; the loss's delta_var."""
    delta_dist: float = 2.0
    """The loss's push margin: clusters whose mean is nearer than this to that of a larger one join it."""
    max_samples: int = 20000
    """Foreground voxels drawn to find the centres."""
    min_bin_samples: int = 5
    """Searches start in cells of the bandwidth's width that hold at least this many samples."""
    largest_is_background: bool = False
    """Whether the largest cluster of an array is background: where no foreground is known (foreground_threshold 0)."""
    connected: bool = True
    """Whether every connected component is an object of its own."""
    min_voxels: int = 50
    """Smaller objects become background."""

    def __post_init__(self) -> None:
        require_positive(self, "bandwidth", "delta_dist", "max_samples", "min_bin_samples")
        require_positive(self, "min_voxels", zero=True)

    def __call__(
        self, embeddings: NDArray[Any], foreground: NDArray[np.bool_], context: Context | None = None
    ) -> NDArray[np.uint32]:
        """Label the objects of one array; see `Method`."""
        centres = sampled_centres(
            embeddings, foreground, context, self.bandwidth, self.max_samples, self.min_bin_samples
        )
        clusters = nearest_centres(embeddings, foreground, centres)
        voxels, sums, *_ = region_statistics(clusters, embeddings, len(centres))
        clusters = apply_lookup(clusters, joined_to_larger(voxels, sums, self.delta_dist))
        if self.largest_is_background:
            clusters = without_largest(clusters)
        return objects(clusters, connected=self.connected, min_voxels=self.min_voxels)


def joined_to_larger(voxels: NDArray[np.int64], sums: NDArray[np.float64], distance: float) -> NDArray[np.uint32]:
    """Join clusters, the largest first, to the nearest of those that stand for themselves.

    Parameters
    ----------
    voxels : ndarray of int64, shape (k + 1,)
        Voxels of each cluster; entry 0 stands for none.
    sums : ndarray of float64, shape (k + 1, c)
        Sums of their embeddings.
    distance : float
        A cluster joins when its mean is nearer than this.

    Returns
    -------
    ndarray of uint32, shape (k + 1,)
        The cluster that each one becomes.
    """
    means = sums / np.maximum(voxels, 1)[:, None]
    table = np.arange(len(voxels), dtype=np.uint32)
    kept: list[int] = []
    for cluster in np.argsort(-voxels[1:], kind="stable") + 1:
        if voxels[cluster] == 0:
            break
        gaps = np.linalg.norm(means[kept] - means[cluster], axis=1)
        if kept and gaps.min() < distance:
            table[cluster] = kept[int(np.argmin(gaps))]
        else:
            kept.append(int(cluster))
    return table
