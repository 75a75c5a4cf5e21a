"""Disjoint sets in a flat array: the root of a set is its smallest member."""

from __future__ import annotations

from typing import Any

from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import INNER_EXACT


@njit(**INNER_EXACT)
def find(parents: NDArray[Any], item: int) -> int:
    """Give the root of an item and shorten the way to it.

    Parameters
    ----------
    parents : ndarray of int, shape (n,)
        The parent of every item; a root is its own. Changed in place.
    item : int
        The item.

    Returns
    -------
    int
        The smallest member of the item's set.

    Notes
    -----
    Path halving (Tarjan and van Leeuwen, J. ACM 31, 1984): amortised O(log n) without ranks.
    """
    while parents[item] != item:
        parents[item] = parents[parents[item]]
        item = parents[item]
    return item


@njit(**INNER_EXACT)
def union(parents: NDArray[Any], first: int, second: int) -> int:
    """Join two sets under the smaller of their roots.

    Parameters
    ----------
    parents : ndarray of int, shape (n,)
        The parent of every item, changed in place.
    first, second : int
        A member of each set.

    Returns
    -------
    int
        The root of the joined set.

    Notes
    -----
    Numbering by smallest member makes the result independent of the order of the unions.
    """
    a: int = find(parents, first)
    b: int = find(parents, second)
    if b < a:
        a, b = b, a
    parents[b] = a
    return a
