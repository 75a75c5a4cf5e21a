"""A single array from embeddings to objects, without blocks: the reference that blockwise results are held against."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.clustering.context import Context
from spoco_blocks.clustering.find_fragments import MERGE_FACTOR
from spoco_blocks.clustering.modes import Modes
from spoco_blocks.clustering.protocol import Method
from spoco_blocks.kernels.agglomeration import agglomerate
from spoco_blocks.kernels.contacts import contacts
from spoco_blocks.kernels.lookup import apply_lookup
from spoco_blocks.kernels.regions import region_statistics


def segment(
    method: Method,
    embeddings: NDArray[Any],
    foreground: NDArray[np.bool_],
    context: Context | None = None,
    *,
    merge_distance: float | None = None,
    small_voxels: int = 100,
    small_distance: float = 3.0,
) -> NDArray[np.uint32]:
    """Segment one array completely.

    Parameters
    ----------
    method : Method
        How embeddings become labels.
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        Embeddings with coordinates added.
    foreground : ndarray of bool, shape (z, y, x)
        Where objects are.
    context : Context, optional
        What was decided before; otherwise the method decides on this array.
    merge_distance, small_voxels, small_distance : float or None, int, float
        As in `agglomerate`; used where the method gives fragments. None = 1.25 times its merge radius.

    Returns
    -------
    ndarray of uint32, shape (z, y, x)
        0, or 1 to k without gaps.
    """
    if not isinstance(method, Modes):
        return method(embeddings, foreground, context)
    labels, coreless = method.find(embeddings, foreground, context)
    merge_distance = MERGE_FACTOR * method.merging if merge_distance is None else merge_distance
    voxels, sums, *_ = region_statistics(labels, embeddings, len(coreless) - 1)
    pairs, faces = contacts(labels)
    roots = agglomerate(
        pairs.astype(np.int64),
        faces,
        np.zeros(len(pairs), np.bool_),
        voxels,
        sums,
        merge_distance=merge_distance,
        small_voxels=small_voxels,
        small_distance=small_distance,
    )
    table = np.unique(roots, return_inverse=True)[1].astype(np.uint32)
    return apply_lookup(labels, table, out=labels)
