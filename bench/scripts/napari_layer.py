"""``napari_layer.py IMAGE FOLDER``: open an image as napari's command line does; prints what the layer is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from napari.components import ViewerModel
from napari.plugins import _initialize_plugins

_initialize_plugins()
viewer = ViewerModel()
(layer,) = viewer.open(sys.argv[1], plugin="napari-ome-zarr")
levels = list(layer.data) if layer.multiscale else [layer.data]
for number, voxels in enumerate(levels):
    np.save(Path(sys.argv[2]) / f"{number}.npy", np.asarray(voxels))
limits = [float(value) for value in getattr(layer, "contrast_limits", ())]
print(
    json.dumps(
        {
            "kind": type(layer).__name__,
            "levels": [voxels.shape for voxels in levels],
            "scale": [float(value) for value in layer.scale],
            "limits": limits,
        }
    )
)
