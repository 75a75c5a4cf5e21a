"""How far every stage is: read from the ledgers alone, while stages run or after they were killed."""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from spoco_blocks.engine.frames import DONE, FAILED, RUN, STARTED, Frame, read_frames
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.ledger import BUFFER_BYTES, ledgers_in
from spoco_blocks.engine.ledger_folders import ledger_folders
from spoco_blocks.engine.lock import holder
from spoco_blocks.errors import LedgerError

NAMED = 5


class ShardStatus:
    """What the ledger of one shard of work says; reads on where it stopped.

    Parameters
    ----------
    path : Path
        The ledger.

    Attributes
    ----------
    run : dict
        What its last run had to do.
    begun, heard : float
        When that run began, and when it last wrote, in Unix seconds.
    done : array of int
        Blocks in the order they were done.
    done_in_run : int
        How many of them in the last run.
    running : dict of int to float
        Blocks that were handed out and have not come back, and when.
    failed : dict of int to str
        Blocks that failed and are not done since, and the last reason.
    held : bool
        Whether a process works on it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.held = path, False
        self._forget(b"")

    def _forget(self, header: bytes) -> None:
        self._header, self._position = header, len(header)
        self.run: dict[str, Any] = {}
        self.begun = self.heard = 0.0
        self.done, self.done_in_run = array("q"), 0
        self.running: dict[int, float] = {}
        self.failed: dict[int, str] = {}

    def update(self) -> None:
        """Read what was added since the last time; all of it where the ledger was begun anew."""
        self.held = holder(self.path.with_suffix(".lock")) is not None
        with self.path.open("rb", buffering=BUFFER_BYTES) as file:
            header = file.readline()
            if header != self._header or os.fstat(file.fileno()).st_size < self._position:
                # Ledgers of another format are emptied when their stage starts; nothing is known of them before.
                self._forget(header)
            file.seek(self._position)
            for frame in read_frames(file):
                self._take(frame)
                self._position = frame.stop

    def _take(self, frame: Frame) -> None:
        self.heard = frame.time
        if frame.kind == RUN:
            self.run, self.begun, self.done_in_run, self.running = frame.facts, frame.time, 0, {}
        elif frame.kind == STARTED:
            self.running.update(dict.fromkeys(frame.blocks, frame.time))
        elif frame.kind == DONE:
            self.done.append(frame.block)
            self.done_in_run += 1
            self.running.pop(frame.block, None)
            self.failed.pop(frame.block, None)
        elif frame.kind == FAILED:
            self.running.pop(frame.block, None)
            self.failed[frame.block] = frame.reason


@dataclass(frozen=True)
class StageStatus:
    """How far one stage of one volume, segmentation or pseudo-label is.

    Attributes
    ----------
    owner, stage : str
        Whose it is, and which.
    shards, of_shards : int
        Shards of work that were begun, and how many there are.
    blocks, done : int
        Blocks of the shards that were begun, and those that are done.
    running : dict of int to float
        Blocks that a process is working on, and since when.
    failed : dict of int to str
        Blocks that failed and do not run again, and the last reason.
    per_second : float
        Blocks per second in the last run.
    seconds_left : float or None
        Estimated; None where nothing runs.
    state : str
        "running", "finished", "failed" or "stopped".
    """

    owner: str
    stage: str
    shards: int
    of_shards: int
    blocks: int
    done: int
    running: dict[int, float]
    failed: dict[int, str]
    per_second: float
    seconds_left: float | None
    state: str

    @classmethod
    def of(cls, owner: str, stage: str, ledgers: Sequence[ShardStatus], now: float) -> StageStatus:
        """Join the shards of work of a stage."""
        newest = max(ledgers, key=lambda ledger: ledger.begun)
        of_shards = int(newest.run["shards"])
        # Ledgers of an earlier number of shards hold records that count, but not how many blocks there are.
        current = [ledger for ledger in ledgers if ledger.run["shards"] == of_shards]
        blocks = sum(int(ledger.run["blocks"]) for ledger in current)
        numbers = np.unique(np.concatenate([np.asarray(ledger.done, np.int64) for ledger in ledgers]))
        done = min(len(numbers), blocks)
        held = [ledger for ledger in ledgers if ledger.held]
        running = {block: since for ledger in held for block, since in ledger.running.items()}
        known = {block: reason for ledger in current for block, reason in ledger.failed.items()}
        finished = set(numbers[np.isin(numbers, list(known))].tolist()) if known else set()
        failed = {block: reason for block, reason in known.items() if block not in finished and block not in running}
        rate = sum(_rate(ledger, now) for ledger in held or current)
        left = (blocks - done) / rate if held and rate else None
        state = "running" if held else "finished" if done == blocks else "failed" if failed else "stopped"
        return cls(
            owner,
            stage,
            len(current),
            of_shards,
            blocks,
            done,
            running,
            dict(sorted(failed.items())),
            rate,
            left,
            state,
        )

    @property
    def details(self) -> Iterator[str]:
        """What is running and what failed, in sentences; the first few of each."""
        running = sorted(self.running.items(), key=lambda item: item[1])
        if running:
            named = ", ".join(f"{block} since {_clock(since)}" for block, since in running[:NAMED])
            yield f"running: {named}{_more(running)}"
        failed = list(self.failed.items())
        for block, reason in failed[:NAMED]:
            yield f"block {block} failed: {reason}"
        if len(failed) > NAMED:
            yield f"failed too: {', '.join(str(block) for block, _ in failed[NAMED:])}"


class Status:
    """How far all stages in a results folder are.

    Parameters
    ----------
    results : Path
        The results folder.

    Raises
    ------
    LedgerError
        When there is no such folder.
    """

    def __init__(self, results: Path) -> None:
        if not results.is_dir():
            raise LedgerError(f"no results folder at {results}: give the one that the workflow writes to.")
        self._layout = Layout(results)
        self._ledgers: dict[Path, ShardStatus] = {}

    def stages(self) -> list[StageStatus]:
        """Give the stages whose ledgers were begun.

        Notes
        -----
        Reads each ledger once, and what was added to it from then on: about 3 s for a million blocks, then little.
        """
        found, now = [], time.time()
        for owner, stage, folder in ledger_folders(self._layout.root):
            ledgers = [self._ledgers.setdefault(path, ShardStatus(path)) for path in ledgers_in(folder)]
            for ledger in ledgers:
                ledger.update()
            if begun := [ledger for ledger in ledgers if ledger.run]:
                found.append(StageStatus.of(owner, stage, begun, now))
        return found


def show(results: Path, watch_seconds: float | None = None, console: Console | None = None) -> None:
    """Print how far all stages are: a table in a terminal, a line for each elsewhere.

    Parameters
    ----------
    results : Path
        The results folder.
    watch_seconds : float or None
        Print again after so many seconds, until interrupted; None = once.
    console : rich.console.Console, optional
        Where to print.
    """
    console = console or Console(soft_wrap=True)
    status = Status(results)
    if not console.is_terminal:
        _print_lines(status, console, watch_seconds)
    elif watch_seconds is None:
        console.print(_table(status.stages()))
    else:
        with Live(_table(status.stages()), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(watch_seconds)
                live.update(_table(status.stages()), refresh=True)


def _print_lines(status: Status, console: Console, watch_seconds: float | None) -> None:
    while True:
        stages = status.stages()
        for stage in stages:
            state, count, remarks, rate, left = _cells(stage)
            words = [state, f"{count} blocks", remarks, f"{rate} a second", f"{left} left" if left else ""]
            line = f"{stage.owner} {stage.stage}: {', '.join(filter(None, words))}"
            console.print(line, markup=False, highlight=False)
            for detail in stage.details:
                console.print(f"  {detail}", markup=False, highlight=False)
        if not stages:
            console.print("no stage has begun")
        if watch_seconds is None:
            return
        time.sleep(watch_seconds)


def _table(stages: Sequence[StageStatus]) -> Group:
    table = Table(title=time.strftime("%H:%M:%S"), caption=None if stages else "no stage has begun")
    for column in ("results of", "stage", "state", "blocks", "a second", "left", ""):
        table.add_column(column, justify="right" if column in {"blocks", "a second", "left"} else "left")
    for stage in stages:
        state, count, remarks, rate, left = _cells(stage)
        table.add_row(stage.owner, stage.stage, state, count, rate, left, remarks)
    return Group(table, *(Text(f"{stage.owner} {stage.stage}: {line}") for stage in stages for line in stage.details))


def _cells(stage: StageStatus) -> tuple[str, str, str, str, str]:
    remarks = [f"{stage.shards} of {stage.of_shards} shards"] if stage.shards < stage.of_shards else []
    remarks += [f"{len(stage.running)} in hand"] if stage.running else []
    remarks += [f"{len(stage.failed)} failed"] if stage.failed else []
    left = "" if stage.seconds_left is None else _duration(stage.seconds_left)
    return stage.state, f"{stage.done}/{stage.blocks}", ", ".join(remarks), f"{stage.per_second:.3g}", left


def _rate(ledger: ShardStatus, now: float) -> float:
    return ledger.done_in_run / max((now if ledger.held else ledger.heard) - ledger.begun, 1e-3)


def _clock(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"


def _more(items: Sequence[object]) -> str:
    return f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
