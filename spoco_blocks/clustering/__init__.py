"""Clustering methods: embeddings and a foreground in, labels out."""

from __future__ import annotations

from spoco_blocks.clustering.consistency import Consistency
from spoco_blocks.clustering.context import Affinities, Context
from spoco_blocks.clustering.embedding_mutex import EmbeddingMutex
from spoco_blocks.clustering.grid_hdbscan import GridHdbscan
from spoco_blocks.clustering.hdbscan import Hdbscan
from spoco_blocks.clustering.mean_shift import MeanShift
from spoco_blocks.clustering.mean_shift_plus import MeanShiftPlus
from spoco_blocks.clustering.modes import Modes
from spoco_blocks.clustering.mutex import Mutex
from spoco_blocks.clustering.protocol import Method
from spoco_blocks.clustering.whole import segment

METHODS: dict[str, type[Method]] = {
    "modes": Modes,
    "mutex": Mutex,
    "embedding_mutex": EmbeddingMutex,
    "mean_shift": MeanShift,
    "mean_shift_plus": MeanShiftPlus,
    "hdbscan": Hdbscan,
    "grid_hdbscan": GridHdbscan,
    "consistency": Consistency,
}

__all__ = [
    "METHODS",
    "Affinities",
    "Consistency",
    "Context",
    "EmbeddingMutex",
    "GridHdbscan",
    "Hdbscan",
    "MeanShift",
    "MeanShiftPlus",
    "Method",
    "Modes",
    "Mutex",
    "segment",
]
