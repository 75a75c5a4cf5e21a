"""Learning curves: kept while training runs, written as CSV and for TensorBoard."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path
from types import TracebackType

import numpy as np
from torch.utils.tensorboard import SummaryWriter

Row = dict[str, float]
NOT_TERMS = ("validation", "training", "gradient", "lost", "iterations", "waiting", "learning")


class Curves:
    """One row per iteration.

    Parameters
    ----------
    path : Path
        The CSV file.
    tensorboard : Path
        Folder for TensorBoard; each start gets one of its own.
    done : int
        Iterations that are done already: their rows are taken over from the file, later ones are dropped.
    """

    def __init__(self, path: Path, tensorboard: Path, done: int = 0) -> None:
        self.path = path
        self.rows = [row for row in read_rows(path) if row["iteration"] <= done] if done else []
        self._board = SummaryWriter(str(tensorboard / time.strftime("%Y%m%d-%H%M%S")), flush_secs=30)

    def add(self, iteration: int, values: Row) -> None:
        """Note the values of an iteration, with as many digits as are written."""
        rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
        self.rows.append({"iteration": float(iteration), **rounded})
        for name, value in values.items():
            self._board.add_scalar(name, value, iteration)

    def means(self, last: int) -> Row:
        """Average each term over the last iterations that had it."""
        rows = self.rows[-max(1, last) :]
        names = sorted({name for row in rows for name in row} - {"iteration"})
        return {name: round(float(np.mean([row[name] for row in rows if name in row])), 5) for name in names}

    def summary(self, last: int) -> str:
        """Say the training terms over the last iterations."""
        means = self.means(last)
        return ", ".join(f"{name} {means[name]:.3f}" for name in means if not name.startswith(NOT_TERMS))

    def write(self) -> None:
        """Write the CSV: a column per term; a term that a patch did not have is left empty."""
        names = ["iteration", *sorted({name for row in self.rows for name in row} - {"iteration"})]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows({name: _text(name, value) for name, value in row.items()} for row in self.rows)
        temporary.replace(self.path)

    def __enter__(self) -> Curves:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.write()
        self._board.close()


def read_rows(path: Path) -> list[Row]:
    """Read rows back; what a row does not have is left out of it."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(file)]


def _text(name: str, value: float) -> str:
    return str(int(value)) if name == "iteration" else f"{value:.6g}"
