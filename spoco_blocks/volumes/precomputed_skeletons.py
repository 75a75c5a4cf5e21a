"""Skeletons as neuroglancer and CloudVolume read them: the unsharded precomputed format, a file for each object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Positions are in nm already.
INFO: dict[str, Any] = {
    "@type": "neuroglancer_skeletons",
    "transform": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
    "vertex_attributes": [{"id": "radius", "data_type": "float32", "num_components": 1}],
}


def write_skeleton(
    folder: Path, number: int, vertices_nm: NDArray[np.float32], edges: NDArray[np.int64], radii_nm: NDArray[np.float32]
) -> None:
    """Write the skeleton of an object.

    Parameters
    ----------
    folder : Path
        The folder of all; it exists.
    number : int
        The object.
    vertices_nm : ndarray of float32, shape (n, 3)
        Positions x, y, z in nm.
    edges : ndarray of int64, shape (m, 2)
        Vertices of each edge.
    radii_nm : ndarray of float32, shape (n,)
        Radius of the object at each vertex, in nm.
    """
    counts = np.array([len(vertices_nm), len(edges)], "<u4")
    parts = (counts, vertices_nm.astype("<f4"), edges.astype("<u4"), radii_nm.astype("<f4"))
    (folder / str(number)).write_bytes(b"".join(part.tobytes() for part in parts))


def write_skeleton_info(folder: Path) -> None:
    """Write what makes a folder of skeletons a source."""
    (folder / "info").write_text(json.dumps(INFO) + "\n")
