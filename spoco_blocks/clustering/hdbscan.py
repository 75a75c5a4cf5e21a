"""HDBSCAN of the hdbscan package, on a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.clustering.centres import nearest_centres, objects, without_largest
from spoco_blocks.clustering.checks import require_positive
from spoco_blocks.clustering.context import Context
from spoco_blocks.clustering.modes import draw
from spoco_blocks.errors import SettingsError


@dataclass(frozen=True)
class Hdbscan:
    """Density clusters of sampled voxels; every voxel takes the cluster with the nearest mean.

    Notes
    -----
    Campello, Moulavi and Sander (PAKDD 2013), as in the SPOCO paper. It knows no borders and is slow: for comparison
    and for small images.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    fragments: ClassVar[bool] = False

    kind: Literal["hdbscan"] = "hdbscan"
    """Name of the method."""
    min_cluster_size: int = 20
    """A cluster has at least this many samples."""
    min_samples: int | None = None
    """Neighbours by which density is measured; null = as many as `min_cluster_size`."""
    cluster_selection_epsilon: float = 0.5
    """Clusters that part below this distance are not parted; the loss's delta_var."""
    max_samples: int = 20000
    """Foreground voxels drawn to find the clusters."""
    noise: Literal["nearest", "background"] = "nearest"
    """Whether voxels far from every cluster join the nearest one or become background."""
    noise_distance: float = 1.0
    """How far from the nearest cluster's mean a voxel counts as noise."""
    largest_is_background: bool = False
    """Whether the largest cluster of an array is background: where no foreground is known (foreground_threshold 0)."""
    connected: bool = True
    """Whether every connected component is an object of its own."""
    min_voxels: int = 50
    """Smaller objects become background."""

    def __post_init__(self) -> None:
        require_positive(self, "max_samples", "noise_distance")
        require_positive(self, "cluster_selection_epsilon", "min_voxels", zero=True)
        if self.min_samples is not None:
            require_positive(self, "min_samples")
        if self.min_cluster_size < 2:
            raise SettingsError(f"min_cluster_size must be 2 or more; got {self.min_cluster_size}.")

    def __call__(
        self, embeddings: NDArray[Any], foreground: NDArray[np.bool_], context: Context | None = None
    ) -> NDArray[np.uint32]:
        """Label the objects of one array; see `Method`."""
        seed = (context or Context()).seed
        centres = self.centres(draw(embeddings, np.flatnonzero(foreground), self.max_samples, seed))
        far = np.inf if self.noise == "nearest" else self.noise_distance
        clusters = nearest_centres(embeddings, foreground, centres, far)
        if self.largest_is_background:
            clusters = without_largest(clusters)
        return objects(clusters, connected=self.connected, min_voxels=self.min_voxels)

    def centres(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Find clusters and give their means.

        Parameters
        ----------
        samples : ndarray of float32, shape (n, c)
            Embeddings.

        Returns
        -------
        ndarray of float32, shape (k, c)
            The means; of all samples where there are too few, or no more than one cluster.
        """
        if len(samples) == 0:
            return samples
        labels = np.zeros(len(samples), np.int64)
        if len(samples) > max(self.min_cluster_size, self.min_samples or 0):
            from hdbscan import HDBSCAN

            labels = HDBSCAN(
                min_cluster_size=self.min_cluster_size,
                min_samples=self.min_samples,
                cluster_selection_epsilon=float(self.cluster_selection_epsilon),
                core_dist_n_jobs=1,
            ).fit_predict(samples.astype(np.float64))
        if (labels < 0).all():
            labels[:] = 0
        sums = np.zeros((labels.max() + 1, samples.shape[1]))
        np.add.at(sums, labels[labels >= 0], samples[labels >= 0])
        return (sums / np.bincount(labels[labels >= 0])[:, None]).astype(np.float32)
