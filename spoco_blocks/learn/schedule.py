"""The one-cycle schedule as functions of the iteration: nothing to save, nothing to restore."""

from __future__ import annotations

import math

# Part of the run in which the rate rises.
RISE = 0.15
FIRST, LAST = 1 / 25, 1 / 25e4
LOW_MOMENTUM, HIGH_MOMENTUM = 0.85, 0.95


def one_cycle(iteration: int, iterations: int) -> tuple[float, float]:
    """Give the learning rate, as a part of its peak, and the optimiser's momentum (beta 1).

    Parameters
    ----------
    iteration : int
        Steps taken so far, 0 to `iterations` - 1.
    iterations : int
        Steps of the run.

    Notes
    -----
    Smith and Topin 2017: the rate rises along half a cosine and falls along another, momentum goes the other way.
    """
    peak, last = RISE * iterations - 1, iterations - 1
    if iteration <= peak:
        part = iteration / peak if peak > 0 else 1.0
        return _between(FIRST, 1.0, part), _between(HIGH_MOMENTUM, LOW_MOMENTUM, part)
    part = (iteration - peak) / (last - peak) if last > peak else 1.0
    return _between(1.0, LAST, part), _between(LOW_MOMENTUM, HIGH_MOMENTUM, part)


def _between(start: float, stop: float, part: float) -> float:
    return stop + (start - stop) / 2 * (math.cos(math.pi * min(part, 1.0)) + 1)
