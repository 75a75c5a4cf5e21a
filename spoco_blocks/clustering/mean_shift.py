"""Mean shift of scikit-learn, on a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.clustering.centres import label_by_centre
from spoco_blocks.clustering.checks import require_positive
from spoco_blocks.clustering.context import Context
from spoco_blocks.clustering.modes import draw


@dataclass(frozen=True)
class MeanShift:
    """Flat-kernel mean shift with binned seeds on sampled voxels; every voxel takes its nearest centre.

    Notes
    -----
    The clustering of the SPOCO paper. It knows no borders and is slow: for comparison and for small images.
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
    connected: bool = True
    """Whether every connected component is an object of its own."""
    min_voxels: int = 50
    """Smaller objects become background."""

    def __post_init__(self) -> None:
        require_positive(self, "bandwidth", "max_samples", "min_bin_samples")
        require_positive(self, "min_voxels", zero=True)
        if self.max_distance is not None:
            require_positive(self, "max_distance")

    def __call__(
        self, embeddings: NDArray[Any], foreground: NDArray[np.bool_], context: Context | None = None
    ) -> NDArray[np.uint32]:
        """Label the objects of one array; see `Method`."""
        seed = (context or Context()).seed
        centres = self.centres(draw(embeddings, np.flatnonzero(foreground), self.max_samples, seed))
        return label_by_centre(
            embeddings,
            foreground,
            centres,
            max_distance=np.inf if self.max_distance is None else self.max_distance,
            connected=self.connected,
            min_voxels=self.min_voxels,
        )

    def centres(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Find the centres of clusters.

        Parameters
        ----------
        samples : ndarray of float32, shape (n, c)
            Embeddings.

        Returns
        -------
        ndarray of float32, shape (k, c)
            The centres.
        """
        from sklearn.cluster import MeanShift as Estimator
        from threadpoolctl import threadpool_limits

        if len(samples) == 0:
            return samples
        estimator = Estimator(
            bandwidth=self.bandwidth,
            bin_seeding=True,
            # scikit-learn raises when no cell is full enough.
            min_bin_freq=min(self.min_bin_samples, 1 + len(samples) // 1000),
        )
        # Its thousands of tiny parallel sections take 20 times as long where another process wants the cores.
        with threadpool_limits(1):
            centres: NDArray[np.float32] = estimator.fit(samples).cluster_centers_.astype(np.float32)
        return centres
