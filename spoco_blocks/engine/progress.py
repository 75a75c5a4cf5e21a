"""How far a run is: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0
# Blocks take alike for a while, not for ever: the rate is that of the last minutes.
SECONDS_OF_RATE = 300.0


class RunProgress:
    """Tells how many blocks of a run are done.

    Parameters
    ----------
    total : int
        Blocks of the run.
    console : rich.console.Console, optional
        Where to draw the bar; standard error when left out. Where it is no terminal there are lines in the log.
    """

    def __init__(self, total: int, console: Console | None = None) -> None:
        self._total, self._done, self._failed = total, 0, 0
        self._start = self._spoken = time.monotonic()
        console = console or Console(stderr=True)
        self._bar = _bar(console) if console.is_terminal else None
        self._handlers: list[logging.StreamHandler[TextIO]] = []

    def __enter__(self) -> RunProgress:
        if self._bar is not None:
            before = sys.stderr
            self._task = self._bar.add_task("blocks", total=self._total, failed="", rate="")
            self._bar.start()
            # Lines of the log go above the bar, not through it.
            streams = [handler for handler in logging.getLogger().handlers if type(handler) is logging.StreamHandler]
            self._handlers = [handler for handler in streams if handler.stream is before]
            self._before = before
            for handler in self._handlers:
                handler.setStream(sys.stderr)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            for handler in self._handlers:
                handler.setStream(self._before)
            self._bar.stop()
        else:
            self._say()

    def update(self, done: int, failed: int) -> None:
        """Tell how many blocks are done, and how many failed and are not done since."""
        self._done, self._failed = done, failed
        if self._bar is not None:
            words = f"[red]{failed} failed" if failed else ""
            self._bar.update(self._task, completed=done, failed=words, rate=f"{self._rate:.3g} a second")
        elif time.monotonic() - self._spoken > SECONDS_BETWEEN_LINES:
            self._say()

    @property
    def _rate(self) -> float:
        return self._done / max(time.monotonic() - self._start, 1e-9)

    def _say(self) -> None:
        rate, left = self._rate, self._total - self._done
        words = f", {self._failed} failed" if self._failed else ""
        seconds = left / rate if rate else float("inf")
        log.info("%d of %d blocks%s, %.2f a second, %.0f s left", self._done, self._total, words, rate, seconds)
        self._spoken = time.monotonic()


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
        console=console,
        speed_estimate_period=SECONDS_OF_RATE,
    )
