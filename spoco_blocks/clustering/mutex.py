"""Objects by the mutex watershed on affinities: for tissue in which objects touch everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.clustering.checks import require_positive
from spoco_blocks.clustering.context import Context
from spoco_blocks.clustering.pieces import without_pieces
from spoco_blocks.kernels.mutex_grid import mutex_watershed


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
    """Smaller pieces, most of them on borders, go to the nearest larger one; null = by small annotated objects (the
    tenth percentile of those the model learnt from): half of their size where a piece is alone, four fifths where it
    touches another."""
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
                "network.affinities: true, or choose kind 'embedding_mutex' or 'modes'."
            )
        affinities = context.affinities
        labels = mutex_watershed(affinities.values, affinities.offsets, affinities.neighbours, foreground)
        return without_pieces(labels, foreground, context, self.min_voxels, self.max_fill_voxels)
