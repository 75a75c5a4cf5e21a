"""Meshes as neuroglancer and CloudVolume read them: the single-resolution ("legacy") precomputed format.

A folder holds `info`, a manifest `ID:0` for each object, and the fragments that manifests name. An object may have many
fragments, so that each block writes its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

INFO = {"@type": "neuroglancer_legacy_mesh"}


def fragment_name(block: int, number: int) -> str:
    """Name the fragment of an object in a block; no folder for each block, because CloudVolume would not find it."""
    return f"{number}:0:{block}"


def write_fragment(path: Path, vertices_nm: NDArray[np.float32], triangles: NDArray[np.uint32]) -> None:
    """Write one fragment.

    Parameters
    ----------
    path : Path
        The file; its folder exists.
    vertices_nm : ndarray of float32, shape (n, 3)
        Positions x, y, z in nm.
    triangles : ndarray of uint32, shape (m, 3)
        Vertices of each triangle.
    """
    parts = (np.array([len(vertices_nm)], "<u4"), vertices_nm.astype("<f4"), triangles.astype("<u4"))
    path.write_bytes(b"".join(part.tobytes() for part in parts))


def write_manifests(folder: Path, fragments: Iterable[tuple[int, Sequence[str]]]) -> None:
    """Write what makes a folder of fragments a source of meshes.

    Parameters
    ----------
    folder : Path
        Where the fragments are; it exists.
    fragments : iterable of (int, sequence of str)
        Every object and the names of its fragments, which may be none.
    """
    for number, names in fragments:
        (folder / f"{number}:0").write_text(json.dumps({"fragments": list(names)}))
    (folder / "info").write_text(json.dumps(INFO) + "\n")
