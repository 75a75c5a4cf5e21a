"""Clusters of one network that the other network confirms: needs no foreground."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.clustering.centres import nearest_centres, objects
from spoco_blocks.clustering.checks import require_positive
from spoco_blocks.clustering.context import Context
from spoco_blocks.clustering.mean_shift import sampled_centres
from spoco_blocks.kernels.agreement import cluster_agreement
from spoco_blocks.kernels.lookup import apply_lookup


@dataclass(frozen=True)
class Consistency:
    """Mean shift on one embedding; a cluster stays where the other embedding sees the same object around its voxels.

    Notes
    -----
    Consistency clustering of the SPOCO paper. Background has not been taught to be near itself, so the networks do not
    agree on it and it is dropped without a model of the foreground. Agreement is measured on drawn voxels, within the
    foreground that is given.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    fragments: ClassVar[bool] = False

    kind: Literal["consistency"] = "consistency"
    """Name of the method."""
    bandwidth: float = 0.5
    """Radius of the kernel, and of what counts as one object in the other embedding; the loss's delta_var."""
    min_agreement: float = 0.6
    """Clusters whose median intersection over union with the other embedding's objects is below this are dropped."""
    anchors: int = 100
    """Voxels drawn from each cluster, around which the other embedding is looked at."""
    max_samples: int = 20000
    """Foreground voxels drawn to find the centres, and to measure agreement."""
    min_bin_samples: int = 5
    """Searches start in cells of the bandwidth's width that hold at least this many samples."""
    connected: bool = True
    """Whether every connected component is an object of its own."""
    min_voxels: int = 50
    """Smaller objects become background."""

    def __post_init__(self) -> None:
        require_positive(self, "bandwidth", "anchors", "max_samples", "min_bin_samples")
        require_positive(self, "min_voxels", zero=True)
        require_positive(self, "min_agreement", zero=True, at_most=1)

    def __call__(
        self, embeddings: NDArray[Any], foreground: NDArray[np.bool_], context: Context | None = None
    ) -> NDArray[np.uint32]:
        """Label the objects of one array; see `Method` and `with_confidence`."""
        return self.with_confidence(embeddings, foreground, context)[0]

    def with_confidence(
        self, embeddings: NDArray[Any], foreground: NDArray[np.bool_], context: Context | None = None
    ) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
        """Label the objects and say how sure each of them is.

        Parameters
        ----------
        embeddings : ndarray of float16 or float32, shape (c, z, y, x)
            Embeddings of one network.
        foreground : ndarray of bool, shape (z, y, x)
            Where objects may be; all True where nothing is known.
        context : Context
            Holds the embeddings of the other network.

        Returns
        -------
        labels : ndarray of uint32, shape (z, y, x)
            0, or 1 to k without gaps.
        confidences : ndarray of float64, shape (k + 1,)
            Agreement of both networks on each object, from `min_agreement` to 1; entry 0 is 0.

        Raises
        ------
        ValueError
            When the context holds no embeddings of another network, or of another shape.
        """
        other = None if context is None else context.other
        if context is None or other is None:
            raise ValueError(
                "clustering kind 'consistency' needs the embeddings of both networks; give those of the other one as "
                "Context(other=...), or choose kind 'mean_shift'."
            )
        if other.shape[1:] != foreground.shape:
            raise ValueError(
                f"expected the other network's embeddings of shape (c, {', '.join(map(str, foreground.shape))}); got "
                f"{other.shape}."
            )
        centres = sampled_centres(
            embeddings, foreground, context, self.bandwidth, self.max_samples, self.min_bin_samples
        )
        clusters = nearest_centres(embeddings, foreground, centres)
        agreement = self._agreement(clusters, np.flatnonzero(foreground), other, context.seed)
        kept = agreement >= self.min_agreement
        kept[0] = False
        clusters = apply_lookup(clusters, np.where(kept, np.arange(len(kept)), 0).astype(np.uint32))
        labels = objects(clusters, connected=self.connected, min_voxels=self.min_voxels)
        cluster_of = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
        cluster_of[labels.reshape(-1)] = clusters.reshape(-1)
        cluster_of[0] = 0
        return labels, agreement[cluster_of]

    def _agreement(
        self, clusters: NDArray[np.uint32], places: NDArray[np.intp], other: NDArray[Any], seed: int
    ) -> NDArray[np.float64]:
        drawn = np.sort(np.random.default_rng(seed).choice(places, min(self.max_samples, len(places)), replace=False))
        others = other.reshape(len(other), -1)[:, drawn].T.astype(np.float32)
        agreement = np.zeros(int(clusters.max(initial=0)) + 1)
        found = cluster_agreement(clusters.reshape(-1)[drawn], others, self.bandwidth, self.anchors, seed)
        agreement[: len(found)] = found
        return agreement
