"""Both passes that come before clustering: the seeds of a volume, and of what each is a piece."""

from __future__ import annotations

from pathlib import Path

from spoco_blocks.clustering import Method, Modes
from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.ledger import Records
from spoco_blocks.engine.runner import Blocks, run
from spoco_blocks.errors import SettingsError
from spoco_blocks.grid import BlockGrid
from spoco_blocks.settings.jobs import digest
from spoco_blocks.stages.exact.pieces import GrowSeeds, decide_pieces, write_pieces
from spoco_blocks.stages.exact.placed import PlacedSeeds, write_seeds
from spoco_blocks.stages.exact.seeds import FindSeeds, number_seeds


def check_exact(method: Method, *, exact: bool) -> None:
    """Check that the method can be applied so that no cut shows.

    Raises
    ------
    SettingsError
        When it cannot.
    """
    if exact and not isinstance(method, Modes):
        raise SettingsError(
            f"stitching.exact is for clustering kind modes, but the model suggests {method.kind}; set clustering: "
            "{kind: modes} to use it all the same, or exact: false."
        )


def find_pieces(
    task: FindSeeds, grid: BlockGrid, folder: Path, ledger: Path, identity: str, execution: Execution, *, planar: bool
) -> dict[str, int]:
    """Find the seeds of the volume, let them grow, and decide which are pieces of one object.

    Parameters
    ----------
    task : FindSeeds
        The first pass; its store is there.
    grid : BlockGrid
        The blocks, as `exact_grid` gives them.
    folder : Path
        Where the tables of seeds and pieces go.
    ledger : Path
        Where the records of blocks go.
    identity : str
        Digest of what was decided before.
    execution : Execution
        How blocks are run.
    planar : bool
        Whether z counts images.

    Returns
    -------
    dict
        What is to be said of it: how many seeds, and how many pieces.
    """
    blocks = Blocks(grid, ledger / "seeds", identity)
    run(task, blocks, execution)
    numbered = number_seeds(Records(blocks.folder, blocks.record_identity, len(grid)), grid, planar=planar)
    write_seeds(folder, numbered)
    growing = Blocks(grid, ledger / "growth", digest(blocks.record_identity, "growth"))
    run(GrowSeeds(task.source, task.method, PlacedSeeds(task.seeds, folder, grid, identity)), growing, execution)
    records = Records(growing.folder, growing.record_identity, len(grid))
    pieces, means = decide_pieces(records, grid, task.method, numbered.means, numbered.cores, planar=planar)
    write_pieces(folder, pieces, means)
    return {"seeds": len(pieces) - 1, "pieces": int((pieces[1:] == range(1, len(pieces))).sum())}
