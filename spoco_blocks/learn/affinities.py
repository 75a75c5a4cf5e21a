"""The affinity head: whether two voxels at a fixed offset belong to one object, learnt around annotated objects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from spoco_blocks.grid import Triple
from spoco_blocks.learn.label_values import BACKGROUND, IGNORE


def known_pairs(labels: Tensor, offset: Triple) -> tuple[Tensor, Tensor, tuple[slice, ...]]:
    """Tell which voxels belong with the one at an offset, and which do not.

    Parameters
    ----------
    labels : Tensor
        (z, y, x) int64: > 0 objects, 0 unlabelled, -1 background, -2 ignore.
    offset : tuple of int
        z, y, x.

    Returns
    -------
    together, apart : Tensor
        bool, of the shape of the part whose partner lies inside the patch.
    part : tuple of slice
        That part.

    Notes
    -----
    An annotated object is outlined whole, so that an object and anything else, unlabelled voxels included, are known to
    be apart: affinities are fully supervised wherever an annotated object ends. So are two background voxels, which
    belong to no object. Pairs of unlabelled voxels say nothing.
    """
    here = tuple(slice(max(0, -d), n - max(0, d)) for d, n in zip(offset, labels.shape, strict=True))
    there = tuple(slice(max(0, d), n - max(0, -d)) for d, n in zip(offset, labels.shape, strict=True))
    a, b = labels[here], labels[there]
    together = (a == b) & (a > 0)
    known = (torch.maximum(a, b) > 0) | ((a == BACKGROUND) & (b == BACKGROUND))
    apart = known & ~together & (a != IGNORE) & (b != IGNORE)
    return together, apart, here


def affinity_loss(logits: Tensor, labels: Tensor, offsets: Sequence[Triple]) -> Tensor | None:
    """Balanced binary cross-entropy, mean over the offsets; None where a patch shows no pair of both kinds.

    Parameters
    ----------
    logits : Tensor
        (o, z, y, x).
    labels : Tensor
        (z, y, x) int64, see `known_pairs`.
    offsets : sequence of tuple of int
        The o offsets.

    Notes
    -----
    For each offset, pairs of one object and pairs apart weigh the same, however rare borders are. Offsets longer than
    the patch, or of which only one kind is seen, are left out.
    """
    terms = []
    for logit, offset in zip(logits, offsets, strict=True):
        if any(abs(step) >= extent for step, extent in zip(offset, labels.shape, strict=True)):
            continue
        together, apart, part = known_pairs(labels, offset)
        n_together, n_apart = together.sum(), apart.sum()
        if n_together == 0 or n_apart == 0:
            continue
        # softplus(-x) = softplus(x) - x: one evaluation serves both kinds.
        here = logit[part]
        weights = together / n_together + apart / n_apart
        terms.append(0.5 * ((functional.softplus(here) * weights).sum() - (here * together).sum() / n_together))
    return torch.stack(terms).mean() if terms else None
