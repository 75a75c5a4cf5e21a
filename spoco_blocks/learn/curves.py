"""Learning curves: kept while training runs, written as CSV and for TensorBoard."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from types import TracebackType

import numpy as np
from torch.utils.tensorboard import SummaryWriter

Row = dict[str, float]


class Curves:
    """One row per iteration.

    Parameters
    ----------
    path : Path
        The CSV file.
    tensorboard : Path
        Folder for TensorBoard; each run gets one of its own.
    """

    def __init__(self, path: Path, tensorboard: Path) -> None:
        self.path = path
        self.rows: list[Row] = []
        self._board = SummaryWriter(str(tensorboard / time.strftime("%Y%m%d-%H%M%S")), flush_secs=30)

    def add(self, iteration: int, values: Row) -> None:
        """Note the values of an iteration."""
        self.rows.append({"iteration": float(iteration), **values})
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
        return ", ".join(f"{name} {means[name]:.3f}" for name in means if not name.startswith(("validation", "grad")))

    def write(self) -> None:
        """Write the CSV: a column per term; a term that a patch did not have is left empty."""
        names = ["iteration", *sorted({name for row in self.rows for name in row} - {"iteration"})]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in self.rows)

    def __enter__(self) -> Curves:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.write()
        self._board.close()
