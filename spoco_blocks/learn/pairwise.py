"""Losses that depend on the squared distances between anchors and points, in memory linear in both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

# Distances that are held at once. A CPU is quickest when they stay in its cache, a GPU when it has much to do.
CHUNK, CHUNK_CPU = 2**22, 2**18

# Takes the squared distances (c, n) of a chunk of anchors, which it may overwrite, and which anchors these are. Gives
# their share of the loss and its derivative by each squared distance (c, n). Rounding can leave distances below zero.
Share = Callable[[Tensor, slice], tuple[Tensor, Tensor]]


def over_distances(anchors: Tensor, points: Tensor, left_out: Tensor | None, share: Share) -> Tensor:
    """Sum, over anchors, a loss of their squared distances to all points.

    Parameters
    ----------
    anchors : Tensor
        (k, e).
    points : Tensor
        (e, n).
    left_out : Tensor or None
        (n,) bool; these points lie at an infinite distance.
    share : callable
        The loss of some anchors and its derivative.

    Returns
    -------
    Tensor
        Scalar, differentiable once in anchors and points.

    Notes
    -----
    The gradient is worked out beside the value, chunk by chunk, because each distance is then needed only once: the
    backward pass keeps (k + n) e numbers and merely scales them. Squared distances are |a|^2 + |p|^2 - 2 a.p, so they
    are accurate to a few roundings of the largest |p|^2: centre the points.
    """
    return _OverDistances.apply(anchors, points, left_out, share)  # type: ignore[no-any-return, no-untyped-call]


def squared_distances(anchors: Tensor, points: Tensor, squares: Tensor) -> Tensor:
    """Squared distances (k, n) of anchors (k, e) to points (e, n) whose squared lengths (n,) are given."""
    return torch.addmm(squares, anchors, points, alpha=-2).add_(anchors.pow(2).sum(1)[:, None])


def squared_lengths(points: Tensor, left_out: Tensor | None) -> Tensor:
    """Squared lengths (n,) of points (e, n); infinite where a point is left out."""
    squares = points.pow(2).sum(0)
    return squares if left_out is None else squares.masked_fill_(left_out, torch.inf)


def chunks(anchors: int, points: Tensor) -> Iterator[slice]:
    """Cut anchors into runs whose distances to points (e, n) are few enough to be held at once."""
    step = max(1, (CHUNK_CPU if points.device.type == "cpu" else CHUNK) // max(1, points.shape[1]))
    return (slice(start, min(start + step, anchors)) for start in range(0, anchors, step))


class _OverDistances(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchors: Tensor, points: Tensor, left_out: Tensor | None, share: Share) -> Tensor:
        squares = squared_lengths(points, left_out)
        total, slopes = points.new_zeros(()), torch.zeros_like(squares)
        by_anchors, by_points = torch.zeros_like(anchors), torch.zeros_like(points)
        for chunk in chunks(len(anchors), points):
            some = anchors[chunk]
            value, slope = share(squared_distances(some, points, squares), chunk)
            total += value
            if any(ctx.needs_input_grad):
                by_anchors[chunk] = 2 * (some * slope.sum(1)[:, None] - slope @ points.t())
                by_points.addmm_(some.t(), slope, alpha=-2)
                slopes += slope.sum(0)
        by_points.addcmul_(points, slopes, value=2)
        ctx.save_for_backward(by_anchors, by_points)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        by_anchors, by_points = ctx.saved_tensors
        return gradient * by_anchors, gradient * by_points, None, None
