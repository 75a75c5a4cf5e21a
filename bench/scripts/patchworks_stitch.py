"""``patchworks_stitch.py FOLDER MODE``: stitch the blocks of a folder; writes MODE.npy, prints what it took.

The "image" numbers the voxels of the volume, so that a tile says which block it is, and its labels are looked up.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import dask.array as da
import numpy as np
import zarr
from patchworks import tile_process
from took import measure


def prepare(folder: Path) -> Callable[[], np.ndarray]:
    """Load the labels of the blocks."""
    mode = sys.argv[2]
    facts = json.loads((folder / "facts.json").read_text())
    numbers = np.arange(np.prod(facts["shape"]), dtype=np.int64).reshape(facts["shape"])
    image = da.from_array(numbers, chunks=tuple(facts["block_shape"]))
    blocks = [np.load(folder / f"outer-{index}.npy") for index in range(len(facts["first_voxels"]))]
    # Where the halo is as wide as a block, two blocks begin at the same voxel.
    labels = {(first, block.shape): block for first, block in zip(facts["first_voxels"], blocks, strict=True)}

    def look_up(tile: np.ndarray) -> np.ndarray:
        """Give the labels of a tile; of anything else than a block nothing."""
        found = labels.get((int(tile.reshape(-1)[0]), tile.shape))
        return np.zeros(tile.shape, np.int32) if found is None else found.astype(np.int32)

    def stitch() -> np.ndarray:
        """Stitch into a store, and read that."""
        target = folder / f"{mode}.zarr"
        shutil.rmtree(target, ignore_errors=True)
        tile_process(
            image, look_up, tile_shape=tuple(facts["block_shape"]), overlap=facts["halo"], stitch=mode,
            write_to=str(target), max_workers=1, progress=False, pyramid_levels=1,
        )  # fmt: skip
        group = zarr.open(str(target), mode="r")
        array = group["labels"] if hasattr(group, "keys") else group
        array = array if hasattr(array, "shape") else array["0"]
        return np.asarray(array[:])

    return stitch


measure(prepare)
