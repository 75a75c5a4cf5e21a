"""The state of a run that is not finished: written now and then, and when the run is told to stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

VERSION = 1


def save_state(path: Path, identity: str, state: dict[str, Any]) -> None:
    """Write a state so that no reader and no crash ever sees half of it; the one before is kept until then."""
    save_atomically(path, {"version": VERSION, "identity": identity, "state": state})


def load_state(path: Path, identity: str) -> dict[str, Any] | None:
    """Read the state of a run; None where there is none, or that of another job, or one that cannot be read.

    Runs no code that the file may hold.
    """
    if not path.is_file():
        return None
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged file ends the unpickler in any way whatever
        return None
    if not isinstance(data, dict) or (data.get("version"), data.get("identity")) != (VERSION, identity):
        return None
    state: dict[str, Any] = data["state"]
    return state


def save_atomically(path: Path, data: dict[str, Any]) -> None:
    """Write with torch.save to a file beside it, then put that in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            torch.save(data, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class StopSignal:
    """Remembers that the process was told to stop, so that it can finish its step first."""

    def __init__(self) -> None:
        self.given = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Note the signal; the next one ends the process as usual."""
        self.given = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def stop_signal() -> Iterator[StopSignal]:
    """Listen for SIGTERM (a scheduler that needs the machine) and SIGINT (Ctrl-C) while a block runs."""
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
