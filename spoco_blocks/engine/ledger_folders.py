"""Where in a results folder ledgers lie."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from spoco_blocks.engine.layout import MESHES, SKELETONS


def ledger_folders(root: Path) -> Iterator[tuple[str, str, Path]]:
    """Give every folder of a results folder that holds ledgers: whose it is, its stage, and where it lies.

    Looks into no store, no meshes and no skeletons, however many files they have.
    """
    for pattern in ("volumes/*", "models/*/pseudo/*", "segmentations/*"):
        for owner in sorted(root.glob(pattern)):
            folders = sorted(owner.glob("*/"))
            stages = [path for path in folders if path.suffix != ".zarr" and path.name not in (MESHES, SKELETONS)]
            for folder in (inner for stage in stages for inner in (stage, *sorted(stage.glob("*/")))):
                if next(folder.glob("*.ledger"), None) is not None:
                    name = owner.relative_to(root).as_posix()
                    yield name, folder.relative_to(owner).as_posix(), folder
