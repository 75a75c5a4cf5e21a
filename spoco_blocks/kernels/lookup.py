"""Replacing labels through a table."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import INNER_EXACT


def apply_lookup(labels: NDArray[np.uint32], table: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Replace every label by its entry in a table.

    Parameters
    ----------
    labels : ndarray of uint32, any shape
        Labels below the table's length.
    table : ndarray, shape (n,)
        The new value of each label.
    out : ndarray of the table's dtype, the labels' shape, optional
        Where the new values go, contiguous; it may be `labels`.

    Returns
    -------
    ndarray of the table's dtype, the labels' shape
        ``table[labels]``.

    Raises
    ------
    IndexError
        When a label has no entry.

    Notes
    -----
    O(n) time. Unlike numpy's indexing it makes no int64 copy of the labels.
    """
    out = np.empty(labels.shape, table.dtype) if out is None else out
    if not _look_up(np.ascontiguousarray(labels).reshape(-1), np.ascontiguousarray(table), out.reshape(-1)):
        raise IndexError(f"label {labels.max()} has no entry in a table of {len(table)}.")
    return out


def remove_border(padded: NDArray[np.uint32], table: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Replace every label by its entry in a table and leave out the border of one voxel.

    Parameters
    ----------
    padded : ndarray of uint32, shape (z + 2, y + 2, x + 2)
        Labels below the table's length.
    table : ndarray of uint32, shape (n,)
        The new value of each label.

    Returns
    -------
    ndarray of uint32, shape (z, y, x)
    """
    out = np.empty([extent - 2 for extent in padded.shape], np.uint32)
    _inner_rows(padded, table, out)
    return out


@njit(**INNER_EXACT)
def _inner_rows(padded: NDArray[np.uint32], table: NDArray[np.uint32], out: NDArray[np.uint32]) -> None:
    nz, ny, nx = out.shape
    for z in range(nz):
        for y in range(ny):
            row, to = padded[z + 1, y + 1, 1 : nx + 1], out[z, y]
            for x in range(nx):
                to[x] = table[row[x]]


@njit(**INNER_EXACT)
def _look_up(labels: NDArray[np.uint32], table: NDArray[Any], out: NDArray[Any]) -> bool:
    for i in range(labels.size):
        label = labels[i]
        if label >= table.size:
            return False
        out[i] = table[label]
    return True
