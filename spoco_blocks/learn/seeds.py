"""Random generators of an iteration: given by its number, so that training goes on anywhere without their state."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What is drawn; each has draws of its own."""

    WARP = 0
    VIEW_F = 1
    VIEW_G = 2
    ANCHORS = 3
    VALIDATION = 4


def generator(seed: int, iteration: int, purpose: Purpose, place: int = 0) -> torch.Generator:
    """Give a generator on the CPU.

    Parameters
    ----------
    seed : int
        Seed of the run.
    iteration : int
        The step.
    purpose : Purpose
        What it draws.
    place : int
        Rank, or place in the batch over all ranks.
    """
    state = np.random.SeedSequence((seed, iteration, int(purpose), place)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
