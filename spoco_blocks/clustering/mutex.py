"""Objects by the mutex watershed on affinities: for tissue in which objects touch everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spoco_blocks.clustering.checks import require_positive
from spoco_blocks.clustering.context import Context
from spoco_blocks.kernels.lookup import apply_lookup
from spoco_blocks.kernels.mutex_grid import mutex_watershed

# Where nothing is known of the size of objects.
PIECE_VOXELS = 50


@dataclass(frozen=True)
class Mutex:
    """Affinities between neighbours join voxels, affinities between distant voxels keep them apart.

    Notes
    -----
    Long, branching objects have no single embedding: what is learnt of them is where they end. One gap in a border does
    not join two objects here, as it does where borders are thresholded.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    fragments: ClassVar[bool] = False

    kind: Literal["mutex"] = "mutex"
    """Name of the method."""
    min_voxels: int | None = None
    """Smaller pieces, most of them on borders, go to the nearest larger one; null = half of what a small annotated
    object has (the tenth percentile of those that the model learnt from)."""
    max_fill_voxels: int = 8
    """Voxels farther than this from every larger piece become background."""

    def __post_init__(self) -> None:
        require_positive(self, "min_voxels", "max_fill_voxels", zero=True)

    def __call__(
        self, embeddings: NDArray[Any], foreground: NDArray[np.bool_], context: Context | None = None
    ) -> NDArray[np.uint32]:
        """Label the objects of one array; see `Method`. The embeddings are not looked at.

        Raises
        ------
        ValueError
            When the context holds no affinities.
        """
        if context is None or context.affinities is None:
            raise ValueError(
                "clustering kind 'mutex' needs affinities, which this model does not predict; train it with "
                "network.affinities: true, or choose kind 'modes'."
            )
        affinities = context.affinities
        labels = mutex_watershed(affinities.values, affinities.offsets, affinities.neighbours, foreground)
        counts = np.bincount(labels.reshape(-1))
        kept = counts >= self._least(context, counts, labels)
        kept[0] = False
        large = apply_lookup(labels, np.where(kept, np.cumsum(kept), 0).astype(np.uint32))
        return fill(large, foreground, self.max_fill_voxels)

    def _least(self, context: Context, counts: NDArray[np.int64], labels: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Give the voxels that a label needs to be an object; of an object that the array cuts, few need be in it."""
        if self.min_voxels is not None or context.smallest_voxels is None:
            return np.full(counts.shape, max(1, PIECE_VOXELS if self.min_voxels is None else self.min_voxels))
        least = np.full(counts.shape, max(1, context.smallest_voxels // 2))
        for axis, ends in enumerate(context.cut):
            for plane, cut in zip((0, -1), ends, strict=True):
                if cut:
                    touching = np.take(labels, plane, axis)
                    least[touching] = np.minimum(least[touching], PIECE_VOXELS)
        return least


def fill(labels: NDArray[np.uint32], foreground: NDArray[np.bool_], reach: int) -> NDArray[np.uint32]:
    """Give foreground without a label that of the nearest labelled voxel.

    Parameters
    ----------
    labels : ndarray of uint32, shape (z, y, x)
        Labels.
    foreground : ndarray of bool, shape (z, y, x)
        What may be filled.
    reach : int
        How far away the labelled voxel may be, in voxels.

    Returns
    -------
    ndarray of uint32, shape (z, y, x)
        Filled labels; the array itself where there is nothing to fill.
    """
    empty = foreground & (labels == 0)
    if not reach or not empty.any() or not labels.any():
        return labels
    distance, nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    empty &= distance <= reach
    filled = labels.copy()
    filled[empty] = labels[tuple(index[empty] for index in nearest)]
    return filled
