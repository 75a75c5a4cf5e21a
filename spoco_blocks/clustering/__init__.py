"""Clustering methods: embeddings and a foreground in, labels out."""

from __future__ import annotations

from spoco_blocks.clustering.context import Affinities, Context
from spoco_blocks.clustering.hdbscan import Hdbscan
from spoco_blocks.clustering.mean_shift import MeanShift
from spoco_blocks.clustering.modes import Modes
from spoco_blocks.clustering.mutex import Mutex
from spoco_blocks.clustering.protocol import Method
from spoco_blocks.clustering.whole import segment

METHODS: dict[str, type[Method]] = {"modes": Modes, "mutex": Mutex, "mean_shift": MeanShift, "hdbscan": Hdbscan}

__all__ = ["METHODS", "Affinities", "Context", "Hdbscan", "MeanShift", "Method", "Modes", "Mutex", "segment"]
