"""Clustering methods: embeddings and a foreground in, labels out."""

from __future__ import annotations

from spoco_blocks.clustering.context import Context
from spoco_blocks.clustering.hdbscan import Hdbscan
from spoco_blocks.clustering.mean_shift import MeanShift
from spoco_blocks.clustering.modes import Modes
from spoco_blocks.clustering.protocol import Method
from spoco_blocks.clustering.whole import segment

METHODS: dict[str, type[Method]] = {"modes": Modes, "mean_shift": MeanShift, "hdbscan": Hdbscan}

__all__ = ["METHODS", "Context", "Hdbscan", "MeanShift", "Method", "Modes", "segment"]
