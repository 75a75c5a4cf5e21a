"""``dask_image_stitch.py FOLDER``: join labels across blocks as dask-image does; prints seconds of three runs."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
from dask_image.ndmeasure._utils import _label
from scipy.ndimage import generate_binary_structure

folder = Path(sys.argv[1])
facts = json.loads((folder / "facts.json").read_text())
inner = np.load(folder / "inner.npy").astype(np.int32)
count = int(inner.max())
seconds = []
with dask.config.set(scheduler="synchronous"):
    for _ in range(3):
        start = time.perf_counter()
        labels = da.from_array(inner, chunks=tuple(facts["block_shape"]))
        graph = _label.label_adjacency_graph(labels, generate_binary_structure(3, 1), count)
        mapping = _label.connected_components_delayed(graph)
        result = np.asarray(_label.relabel_blocks(labels, mapping).compute())
        seconds.append(time.perf_counter() - start)
np.save(folder / "dask-image.npy", result)
print(json.dumps(seconds))
