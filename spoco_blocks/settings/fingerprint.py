"""Noticing that a store was edited in place, without reading it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def fingerprint(*uris: str | None) -> str:
    """Give a digest of the places, sizes and times of what is stored locally under some URIs.

    Parameters
    ----------
    *uris : str or None
        Volumes; those that are not local, or not there yet, count by their name only.

    Notes
    -----
    One walk over the files' metadata, no voxel is read: about a second per hundred thousand files.
    """
    total = hashlib.sha256()
    for uri in filter(None, uris):
        total.update(uri.encode())
        for path in _files(uri):
            status = path.stat()
            total.update(f"{path}:{status.st_size}:{status.st_mtime_ns}".encode())
    return total.hexdigest()[:16]


def _files(uri: str) -> list[Path]:
    if "://" in uri:
        return []
    path = named = Path(uri.partition("?")[0])
    # HDF5: the volume is a name inside of a file.
    while not path.exists() and path != path.parent:
        path = path.parent
    if path.is_file():
        return [path]
    if path != named:  # a folder of images: the volume is a name beside them
        return sorted(named.parent.glob("*.png"))
    return sorted(Path(folder) / name for folder, _, names in os.walk(path) for name in names)
