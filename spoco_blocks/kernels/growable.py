"""Lists whose length is not known beforehand."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spoco_blocks.kernels.half import JIT_EXACT


@njit(**JIT_EXACT)
def with_room(values: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Give an array with the same beginning that holds so many values; itself where it does, else one twice as long."""
    if size <= values.size:
        return values
    wide = np.empty(2 * size, np.int64)
    wide[: values.size] = values
    return wide
