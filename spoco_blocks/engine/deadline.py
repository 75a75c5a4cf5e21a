"""When to stop handing out blocks, so that those that were handed out are finished before the process is ended."""

from __future__ import annotations

import time

from spoco_blocks.engine.tasks import BATCH_SECONDS

# Of the time that there is, what is kept for the end: closing workers and files, on a file system that may be slow.
RESERVE_SHARE = 0.05
MIN_RESERVE_S, MAX_RESERVE_S = 5.0, 60.0


def reserve_s(deadline: float) -> float:
    """Give the seconds to keep free before a deadline (Unix seconds), as seen from now."""
    return max(MIN_RESERVE_S, min(MAX_RESERVE_S, RESERVE_SHARE * (deadline - time.time())))


class Closing:
    """Tells whether it is too late to begin another block.

    Parameters
    ----------
    deadline : float or None
        When this process will be ended, in Unix seconds; None = never.
    waves : int
        Blocks that a worker may have to finish one after the other: 2 where one waits while another runs.

    Attributes
    ----------
    longest_s : float or None
        Seconds of the longest block so far. Until one is finished, blocks go out whatever they take: a job that is too
        short for two of them still gets one done.
    """

    def __init__(self, deadline: float | None, waves: int) -> None:
        self._deadline, self._waves = deadline, waves
        self._reserve_s = 0.0 if deadline is None else reserve_s(deadline)
        self.longest_s: float | None = None

    def finished(self, seconds: float) -> None:
        """Learn how long a block took."""
        self.longest_s = max(seconds, self.longest_s or 0.0)

    def __call__(self) -> bool:
        """Tell whether to stop."""
        if self._deadline is None:
            return False
        needed_s = self._reserve_s
        if self.longest_s is not None:
            needed_s += self._waves * (self.longest_s + BATCH_SECONDS)
        return time.time() + needed_s > self._deadline
