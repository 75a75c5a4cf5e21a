"""Who else works on a results folder, before anything is started beside them."""

from __future__ import annotations

from pathlib import Path

from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.lock import held_in
from spoco_blocks.engine.slurm import unfinished_jobs
from spoco_blocks.errors import LedgerError


def refuse_others(results: Path, folder: Path) -> None:
    """Refuse to go on where another run still works.

    Parameters
    ----------
    results : Path
        The results folder: stages that hold its locks are working, on whatever node.
    folder : Path
        Where Snakemake was started: jobs of Slurm that it submitted from there may also be waiting.

    Raises
    ------
    LedgerError
        With what works, and how to stop it.
    """
    found = [f"{stage}: {by}" for stage, by in held_in(Layout(results).locks).items()]
    found += unfinished_jobs(folder)
    if found:
        lines = "\n".join(f"  {line}" for line in found)
        raise LedgerError(
            f"another run, or what it left behind, works on {results}:\n{lines}\nWait until it is finished, or stop it "
            "with `scancel JOB` or `kill PROCESS` (what it finished is kept), and start again."
        )
