"""Which of the validated networks is kept, and when looking further is of no use."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from torch import Tensor

# Scores nearer than this are the same: the later network is kept, which has seen more and moves less.
NOISE = 0.01

Weights = dict[str, dict[str, Tensor]]


@dataclass
class Selection:
    """The best network so far.

    Attributes
    ----------
    best : float or None
        Highest score so far.
    iteration : int
        When the network that is kept was validated; 0 = none was.
    kept : float
        Its score.
    stale : int
        Validations since the highest score rose by more than noise.
    weights : dict or None
        State of f and of g.
    """

    best: float | None = None
    iteration: int = 0
    kept: float = 0.0
    stale: int = 0
    weights: Weights | None = None

    def consider(self, iteration: int, score: float, weights: Weights) -> None:
        """Take a network into account; its weights are copied when it is kept."""
        best = score if self.best is None else self.best
        self.stale = 0 if self.best is None or score > best + NOISE else self.stale + 1
        if score >= best - NOISE:
            self.iteration, self.kept, self.weights = iteration, score, copy.deepcopy(weights)
        self.best = max(best, score)

    def exhausted(self, patience: int | None) -> bool:
        """Tell whether there were so many validations without a better score."""
        return patience is not None and self.stale >= patience

    def state(self) -> dict[str, Any]:
        """Give what a continued run needs; tensors are not copied."""
        return dict(vars(self))
