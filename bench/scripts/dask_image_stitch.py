"""``dask_image_stitch.py FOLDER NAME``: join labels as dask-image does; writes NAME.npy, prints what it took."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import dask
import dask.array as da
import numpy as np
from dask_image.ndmeasure._utils import _label
from scipy.ndimage import generate_binary_structure
from took import measure


def prepare(folder: Path) -> Callable[[], np.ndarray]:
    """Load the labels of all blocks."""
    facts = json.loads((folder / "facts.json").read_text())
    inner = np.load(folder / "inner.npy").astype(np.int32)
    count = int(inner.max())

    def stitch() -> np.ndarray:
        """Join what touches across faces."""
        labels = da.from_array(inner, chunks=tuple(facts["block_shape"]))
        graph = _label.label_adjacency_graph(labels, generate_binary_structure(3, 1), count)
        mapping = _label.connected_components_delayed(graph)
        return np.asarray(_label.relabel_blocks(labels, mapping).compute())

    return stitch


with dask.config.set(scheduler="synchronous"):
    measure(prepare)
