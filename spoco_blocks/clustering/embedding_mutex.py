"""Objects by the mutex watershed on distances between embeddings: it needs nothing but these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.clustering.checks import require_positive
from spoco_blocks.clustering.context import Context
from spoco_blocks.clustering.pieces import without_pieces
from spoco_blocks.errors import SettingsError
from spoco_blocks.kernels.embedding_affinities import embedding_affinities
from spoco_blocks.kernels.mutex_grid import mutex_watershed

NEIGHBOURS = np.eye(3, dtype=np.int64)


@dataclass(frozen=True)
class EmbeddingMutex:
    """Neighbours with near embeddings are joined, voxels with far ones are kept apart, the clearest pairs first.

    Notes
    -----
    Embeddings that drift along a long object still change little from one voxel to the next and much across a border:
    they are compared where they are, not with the mean of an object. Voxels farther apart than the border is wide see
    both sides of it, so one place where embeddings blend does not join two objects. Affinities from embeddings after
    Lee et al. (IEEE Trans. Med. Imaging 2021; arXiv 1909.09872), the partition after Wolf et al. (arXiv 1904.12654).
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    fragments: ClassVar[bool] = False

    kind: Literal["embedding_mutex"] = "embedding_mutex"
    """Name of the method."""
    delta_dist: float = 2.0
    """The loss's push margin: embeddings nearer than this never keep apart, those twice as far surely do; the nearer
    neighbours are to each other than that, the earlier they are joined."""
    reaches_voxels: tuple[int, ...] = (3, 9)
    """How far apart voxels are that may keep apart: more than the width of borders."""
    min_voxels: int | None = None
    """Smaller pieces, most of them on borders, go to the nearest larger one; null = by small annotated objects (the
    tenth percentile of those the model learnt from): half of their size where a piece is alone, four fifths where it
    touches another."""
    max_fill_voxels: int = 8
    """Voxels farther than this from every larger piece become background."""

    def __post_init__(self) -> None:
        require_positive(self, "delta_dist")
        require_positive(self, "min_voxels", "max_fill_voxels", zero=True)
        if not self.reaches_voxels or min(self.reaches_voxels) < 2:
            raise SettingsError(
                "reaches_voxels must be distances of 2 or more voxels, such as [3, 9]; got "
                f"{list(self.reaches_voxels)}."
            )

    def __call__(
        self, embeddings: NDArray[Any], foreground: NDArray[np.bool_], context: Context | None = None
    ) -> NDArray[np.uint32]:
        """Label the objects of one array; see `Method`."""
        far = np.concatenate([reach * NEIGHBOURS for reach in self.reaches_voxels])
        joining = embedding_affinities(embeddings, NEIGHBOURS, 0.0, 2 * self.delta_dist)
        parting = embedding_affinities(embeddings, far, self.delta_dist, 2 * self.delta_dist)
        offsets = np.concatenate((NEIGHBOURS, far))
        labels = mutex_watershed(np.concatenate((joining, parting)), offsets, len(NEIGHBOURS), foreground)
        return without_pieces(labels, foreground, context or Context(), self.min_voxels, self.max_fill_voxels)
