"""Replacing labels through a table."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import JIT_EXACT


def apply_lookup(labels: NDArray[np.uint32], table: NDArray[Any]) -> NDArray[Any]:
    """Replace every label by its entry in a table.

    Parameters
    ----------
    labels : ndarray of uint32, any shape
        Labels below the table's length.
    table : ndarray, shape (n,)
        The new value of each label.

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
    out = np.empty(labels.shape, table.dtype)
    if not _look_up(np.ascontiguousarray(labels).reshape(-1), np.ascontiguousarray(table), out.reshape(-1)):
        raise IndexError(f"label {labels.max()} has no entry in a table of {len(table)}.")
    return out


@njit(**JIT_EXACT)
def _look_up(labels: NDArray[np.uint32], table: NDArray[Any], out: NDArray[Any]) -> bool:
    for i in range(labels.size):
        label = labels[i]
        if label >= table.size:
            return False
        out[i] = table[label]
    return True
