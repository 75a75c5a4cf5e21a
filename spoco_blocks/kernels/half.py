"""Reading float16 in numba: the bits travel as uint16 and widen to float32 in registers."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

# Options of every compiled kernel: cached on disk, without the GIL, sums may be reordered for vector units.
JIT = {"cache": True, "nogil": True, "fastmath": True, "boundscheck": False}
# As above where the order of floating-point sums decides the result.
JIT_EXACT = {"cache": True, "nogil": True, "boundscheck": False}
# As these two, for functions that make no array, as all are that are called voxel by voxel: others count who holds an
# array whenever one is sliced or taken out of a tuple, which takes longer than a distance.
INNER = JIT | {"_nrt": False}
INNER_EXACT = JIT_EXACT | {"_nrt": False}


@intrinsic
def widen(typing_context: Any, value: Any) -> Any:
    """Give a float32 from float16 bits (uint16) or from a float32; compiles to one conversion instruction."""
    if value == types.uint16:

        def from_half(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

        return types.float32(types.uint16), from_half

    def unchanged(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return args[0]

    return types.float32(types.float32), unchanged


def as_bits(embeddings: NDArray[Any]) -> NDArray[Any]:
    """View float16 as uint16 for `widen`; float32 passes through, other floats are converted to float32."""
    if embeddings.dtype == np.float16:
        return embeddings.view(np.uint16)
    return embeddings.astype(np.float32, copy=False)


def as_channels(embeddings: NDArray[Any]) -> NDArray[Any]:
    """Give the bits as one contiguous line of voxels per channel, (c, z y x); copies what lies otherwise."""
    return np.ascontiguousarray(as_bits(embeddings)).reshape(len(embeddings), -1)
