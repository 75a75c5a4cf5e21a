"""Running ours and its peers side by side on one input, and saying which claims hold.

A benchmark is a module with a function ``run(quick: bool) -> Report``.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

MODULES = ("numpy", "numba", "scipy", "scikit-learn", "scikit-image", "hdbscan", "torch", "zarr", "dask")
VECTOR_FLAGS = ("sse4_2", "avx2", "f16c", "avx512f", "avx512_bf16", "amx_bf16", "asimd")


@dataclass(frozen=True)
class Contender:
    """One way of doing the job.

    Attributes
    ----------
    name : str
        What it is called in the table.
    run : callable
        Does the whole job once and gives its result.
    """

    name: str
    run: Callable[[], Any]


@dataclass(frozen=True)
class Measurement:
    """What running a contender gave.

    Attributes
    ----------
    seconds : list of float
        Time of every run.
    result : object
        Result of the last run.
    """

    seconds: list[float]
    result: Any

    @property
    def median(self) -> float:
        """Median time in seconds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Row:
    """A line of the table: the same figure for ours and for a peer.

    Attributes
    ----------
    subject : str
        The input.
    figure : str
        What was measured, with its unit.
    ours, peer : float
        The values.
    peer_name : str
        Whose value it is.
    """

    subject: str
    figure: str
    ours: float
    peer: float
    peer_name: str

    @property
    def ratio(self) -> float:
        """Ours divided by the peer's."""
        return self.ours / self.peer if self.peer else float("inf")


@dataclass(frozen=True)
class Claim:
    """A figure and the bound that it has to keep: a ratio or a count, never seconds.

    Attributes
    ----------
    text : str
        What is claimed.
    figure : float
        What was measured.
    at_least, at_most : float or None
        The bounds.
    """

    text: str
    figure: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the figure keeps its bounds."""
        above = self.at_least is None or self.figure >= self.at_least
        return above and (self.at_most is None or self.figure <= self.at_most)

    def __str__(self) -> str:
        bounds = [f"at least {self.at_least:g}"] if self.at_least is not None else []
        bounds += [f"at most {self.at_most:g}"] if self.at_most is not None else []
        return f"{'holds' if self.holds else 'falls short'}: {self.text}: {self.figure:.4g} ({', '.join(bounds)})"


@dataclass
class Report:
    """All that a benchmark found.

    Attributes
    ----------
    rows : list of Row
        The table.
    claims : list of Claim
        What has to hold.
    notes : list of str
        What a reader has to know of the inputs.
    """

    rows: list[Row] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def measure(
    contenders: Sequence[Contender],
    repeats: int = 3,
    warm_up: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Measurement]:
    """Run contenders in turn.

    Parameters
    ----------
    contenders : sequence of Contender
        Run one after the other, then all over again: what slows the machine for a while slows all of them.
    repeats : int
        Timed runs of each.
    warm_up : bool
        Run each once before, so that compilation is not timed.
    clock : callable
        What the time is read from; `time.process_time` where other work shares the machine and all have one thread.

    Returns
    -------
    dict of str to Measurement
        By the contenders' names.
    """
    seconds: dict[str, list[float]] = {c.name: [] for c in contenders}
    results: dict[str, Any] = {}
    if warm_up:
        for contender in contenders:
            contender.run()
    for _ in range(repeats):
        for contender in contenders:
            start = clock()
            results[contender.name] = contender.run()
            seconds[contender.name].append(clock() - start)
    return {name: Measurement(values, results[name]) for name, values in seconds.items()}


def machine() -> dict[str, Any]:
    """Describe the machine, without its name.

    Returns
    -------
    dict
        Cores, architecture, vector units, memory, system and Python.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts: dict[str, Any] = {"cores": cores, "architecture": platform.machine()}
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text().splitlines()
        entries = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
        entries = {key.strip(): value.strip() for key, value in entries.items()}
        flags = set((entries.get("flags") or entries.get("Features") or "").split())
        facts["cpu"] = entries.get("model name", "unknown")
        facts["vector_units"] = [flag for flag in VECTOR_FLAGS if flag in flags]
    if hasattr(os, "sysconf"):
        facts["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return facts | {"system": platform.system(), "python": platform.python_version()}


def versions(modules: Sequence[str] = MODULES) -> dict[str, str]:
    """Give the versions of the packages that decide speed.

    Parameters
    ----------
    modules : sequence of str
        Names of distributions.

    Returns
    -------
    dict of str to str
        Those that are installed.
    """
    found = {}
    for name in modules:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def publish(name: str, report: Report, *, quick: bool, target: Path | None, console: Console | None = None) -> int:
    """Print a report and write it down.

    Parameters
    ----------
    name : str
        The benchmark.
    report : Report
        What it found.
    quick : bool
        Whether it was the short run.
    target : Path or None
        JSON file to write.
    console : rich.console.Console, optional
        Where to print.

    Returns
    -------
    int
        Exit code: 1 when a claim falls short, else 0.
    """
    console = console or Console(width=120)
    table = Table(title=f"{name}{' (quick)' if quick else ''}")
    for column in ("input", "figure", "ours", "peer", "", "ratio"):
        table.add_column(column, justify="left" if column in {"input", "figure", ""} else "right")
    for row in report.rows:
        table.add_row(row.subject, row.figure, f"{row.ours:.4g}", f"{row.peer:.4g}", row.peer_name, f"{row.ratio:.3g}")
    console.print(table)
    for note in report.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    for claim in report.claims:
        console.print(str(claim), markup=False, highlight=False, soft_wrap=True)
    if target is not None:
        target.write_text(json.dumps(_record(name, report, quick), indent=2) + "\n")
    return 0 if all(claim.holds for claim in report.claims) else 1


def _record(name: str, report: Report, quick: bool) -> Mapping[str, Any]:
    return {
        "benchmark": name,
        "quick": quick,
        "machine": machine(),
        "versions": versions(),
        "rows": [asdict(row) | {"ratio": row.ratio} for row in report.rows],
        "claims": [asdict(claim) | {"holds": claim.holds} for claim in report.claims],
        "notes": report.notes,
    }
