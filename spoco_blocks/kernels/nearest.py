"""The nearest of many modes, for voxels beside others that know theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.distance import squared_distance
from spoco_blocks.kernels.half import INNER, JIT

# The triangle bound on squared distances is 4; a little more, so that rounding never rules out a mode that is as near.
WITHIN = np.float32(4.001)


@njit(**INNER)
def nearest_mode(
    vector: NDArray[np.float32], guess: int, above: int, before: int, table: Any
) -> tuple[int, np.float32]:
    """Give the nearest mode of an embedding.

    Parameters
    ----------
    vector : ndarray of float32, shape (c,)
        The embedding.
    guess : int
        A mode, 0 to k - 1: that of the voxel to the left.
    above, before : int
        1 + the modes of the voxels above and before, or 0, or k + 1.
    table : tuple of ndarrays
        As `mode_table` gives it.

    Returns
    -------
    mode : int
        The nearest, 0 to k - 1; the first of equally near ones.
    squared : float32
        Its squared distance.

    Notes
    -----
    One distance where the guess is right and its neighbours are far, by the triangle inequality (Elkan, ICML 2003).
    """
    modes, _, gaps = table[:3]
    k = len(modes)
    squared = squared_distance(vector, modes[guess])
    if k == 1 or gaps[guess, 0] > WITHIN * squared:
        return guess, squared
    mode, squared = nearer_hint(vector, guess, squared, above, before, modes)
    return _closest(vector, mode, squared, table)  # type: ignore[no-any-return]


@njit(**INNER)
def nearer_hint(
    vector: NDArray[np.float32],
    guess: int,
    squared: np.float32,
    above: int,
    before: int,
    modes: NDArray[np.float32],
) -> tuple[int, np.float32]:
    """Give the nearest of three modes, and its squared distance: a guess, and those of the voxels above and before.

    Parameters
    ----------
    vector : ndarray of float32, shape (c,)
        The embedding.
    guess, squared : int, float32
        A mode, 0 to k - 1, and its squared distance.
    above, before : int
        1 + the modes of the two voxels; 0, k + 1 and more are none.
    modes : ndarray of float32, shape (k, c)
        The modes.
    """
    mode = guess
    for hint in (above, before):
        if 0 < hint <= len(modes) and hint - 1 != mode:
            other = squared_distance(vector, modes[hint - 1])
            if other < squared:
                squared = other
                mode = hint - 1
    return mode, squared


@njit(**JIT)
def no_strays(channels: int) -> Any:
    """Give the memory of `find_stray` and `keep_stray`: for as many embeddings as a row has objects, about."""
    return np.zeros((8, channels), np.float32), np.zeros(8, np.float32), np.zeros(8, np.int32), np.zeros(1, np.int32)


@njit(**INNER)
def find_stray(vector: NDArray[np.float32], bound: np.float32, strays: Any) -> tuple[int, bool]:
    """Compare an embedding with earlier ones that have no mode within reach.

    Parameters
    ----------
    vector : ndarray of float32, shape (c,)
        The embedding.
    bound : float32
        The square of how far they may be from each other.
    strays : tuple of ndarrays
        What `keep_stray` has kept.

    Returns
    -------
    name : int
        Name of the first one that is no farther; 0 where none is.
    alone : bool
        Whether one is so near that this embedding has no mode within reach either: without it, each voxel of an object
        that has no mode would be compared with all modes.
    """
    vectors, rooms, names, _ = strays
    name, alone = 0, False
    for r in range(names.size):
        if names[r] == 0:
            break
        squared = np.float32(0)
        for c in range(vector.size):
            difference = vector[c] - vectors[r, c]
            squared += difference * difference
        alone |= squared < rooms[r]
        if squared <= bound and name == 0:
            name = int(names[r])
        if alone and name != 0:
            break
    return name, alone


@njit(**INNER)
def keep_stray(vector: NDArray[np.float32], squared: np.float32, bound: np.float32, strays: Any) -> int:
    """Keep an embedding whose nearest mode is out of reach, in place of the oldest one, and give its name: 1, 2, ...

    Parameters
    ----------
    vector : ndarray of float32, shape (c,)
        The embedding.
    squared, bound : float32
        Its squared distance to the nearest mode, and the square of the reach.
    strays : tuple of ndarrays
        Embeddings, shape (r, c); the squares of how far from each no mode is within reach; names, 0 where there is
        none yet; and how many there were. Changed in place.
    """
    vectors, rooms, names, count = strays
    place = count[0] % names.size
    count[0] += 1
    for c in range(vector.size):
        vectors[place, c] = vector[c]
    # A little less, so that rounding never hides a mode.
    rooms[place] = (np.float32(0.999) * (np.sqrt(squared) - np.sqrt(bound))) ** 2
    names[place] = count[0]
    return int(count[0])


@njit(**INNER)
def _closest(vector: NDArray[np.float32], start: int, squared: np.float32, table: Any) -> tuple[int, np.float32]:
    """Give the nearest mode, starting from one whose squared distance is known."""
    modes, neighbours, gaps, lines, distances = table
    best = squared
    mode = start
    for q in range(neighbours.shape[1]):
        if gaps[start, q] > WITHIN * squared:
            return mode, best
        candidate = neighbours[start, q]
        other = squared_distance(vector, modes[candidate])
        if other < best or (other == best and candidate < mode):
            best = other
            mode = candidate
    if neighbours.shape[1] == len(modes) - 1:
        return mode, best
    # All at once, channel by channel, which vector code does in the time of a few one by one.
    distances[:] = 0
    for c in range(vector.size):
        line, value = lines[c], vector[c]
        for candidate in range(distances.size):
            difference = line[candidate] - value
            distances[candidate] += difference * difference
    for candidate in range(distances.size):
        if distances[candidate] <= np.float32(1.00001) * best:
            # Once more, so that a distance does not depend on the way to it.
            other = squared_distance(vector, modes[candidate])
            if other < best or (other == best and candidate < mode):
                best = other
                mode = candidate
    return mode, best
