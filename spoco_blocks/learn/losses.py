"""The loss terms of SPOCO on one patch (Wolny et al., CVPR 2022, section 3). Pure functions of tensors.

Shapes: n voxels, e embedding channels, k objects. Distances are Euclidean and in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from spoco_blocks.learn.label_values import BACKGROUND
from spoco_blocks.learn.pairwise import over_distances, squared_distances, squared_lengths
from spoco_blocks.settings.loss import LossSettings

# An object cut to fewer voxels than this by the patch has no mean worth learning from.
MIN_VOXELS = 16
# Keeps the gradient of a length finite at zero.
EPSILON = 1e-8
# Within this distance rounding decides the direction between two points, and their push fades to nothing.
BLUR = 1e-2
# Soft masks end at exp(-FAINT) = 4e-11: further out their squares are denormal numbers, in which processors are slow.
FAINT = 24.0


@dataclass(frozen=True)
class Objects:
    """The annotated objects of a patch.

    Attributes
    ----------
    voxels : Tensor
        (v,) int64, flat indices of the voxels that belong to an object.
    owner : Tensor
        (v,) int64, the object 0..k-1 of each.
    counts : Tensor
        (k,) float32, voxels of each object.
    """

    voxels: Tensor
    owner: Tensor
    counts: Tensor

    def __len__(self) -> int:
        return len(self.counts)


def find_objects(labels: Tensor) -> Objects:
    """Index the objects (labels > 0) of a patch; those cut to a few voxels are left out."""
    flat = labels.reshape(-1)
    voxels = torch.nonzero(flat > 0)[:, 0]
    _, owner, counts = torch.unique(flat[voxels], return_inverse=True, return_counts=True)
    kept = counts >= MIN_VOXELS
    dense = torch.cumsum(kept, 0) - 1
    inside = kept[owner]
    return Objects(voxels[inside], dense[owner[inside]], counts[kept].float())


def object_means(embeddings: Tensor, objects: Objects) -> Tensor:
    """Mean embedding (k, e) of each object from embeddings (e, n), by scatter-add."""
    sums = embeddings.new_zeros(len(embeddings), len(objects))
    sums = sums.index_add(1, objects.owner, embeddings.index_select(1, objects.voxels))
    return (sums / objects.counts).t()


def per_object(values: Tensor, objects: Objects) -> Tensor:
    """Mean over each object (k,) of values (v,) given at its voxels."""
    return values.new_zeros(len(objects)).index_add(0, objects.owner, values) / objects.counts


def pull(embeddings: Tensor, means: Tensor, objects: Objects, delta_var: float) -> Tensor:
    """Mean over objects of the mean over voxels of max(0, |e_i - mu_k| - delta_var)^2."""
    squared = (embeddings.index_select(1, objects.voxels) - means.t().index_select(1, objects.owner)).pow(2).sum(0)
    apart = (squared + EPSILON).sqrt()
    return per_object(functional.relu(apart - delta_var).pow(2), objects).mean()


def push(means: Tensor, delta_dist: float, near: Tensor | None = None) -> Tensor:
    """Mean over ordered pairs k != l of max(0, 2 delta_dist - |mu_k - mu_l|)^2; zero without pairs.

    Parameters
    ----------
    means : Tensor
        (k, e).
    delta_dist : float
        Push margin.
    near : Tensor, optional
        (k, k) bool; only these pairs are pushed.

    Notes
    -----
    In (k, k) matrices. Means that coincide keep their full loss and get no gradient: they have no direction to part in.
    """
    pairs = ~torch.eye(len(means), dtype=torch.bool, device=means.device)
    if near is not None:
        pairs &= near
    count = pairs.sum().clamp(min=1)

    def share(squared: Tensor, chunk: slice) -> tuple[Tensor, Tensor]:
        return _hinge(squared.masked_fill_(~pairs[chunk], torch.inf), 2 * delta_dist, count)

    return over_distances(means, means.t(), None, share)


def regulariser(means: Tensor) -> Tensor:
    """Mean length of the means."""
    return (means.pow(2).sum(1) + EPSILON).sqrt().mean()


def unlabelled_push(means: Tensor, embeddings: Tensor, unlabelled: Tensor, delta_dist: float) -> Tensor:
    """Mean over objects and unlabelled voxels of max(0, delta_dist - |e_i - mu_k|)^2; zero without either.

    Parameters
    ----------
    means : Tensor
        (k, e).
    embeddings : Tensor
        (e, n).
    unlabelled : Tensor
        (n,) bool.
    delta_dist : float
        Push margin.
    """
    count = (unlabelled.sum() * len(means)).clamp(min=1)

    def share(squared: Tensor, chunk: slice) -> tuple[Tensor, Tensor]:
        return _hinge(squared, delta_dist, count)

    return over_distances(means, embeddings, ~unlabelled, share)


def softness(loss: LossSettings) -> float:
    """Width s of the soft mask exp(-d^2 / s), which is mask_threshold at a distance of delta_var."""
    return loss.delta_var**2 / -math.log(loss.mask_threshold)


def instance_dice(anchors: Tensor, embeddings: Tensor, objects: Objects, ignored: Tensor, width: float) -> Tensor:
    """Mean over objects of the Dice distance between the soft mask around an anchor and the annotation.

    Parameters
    ----------
    anchors : Tensor
        (k, e), the embedding that stands for each object.
    embeddings : Tensor
        (e, n).
    objects : Objects
        The k objects.
    ignored : Tensor
        (n,) bool, voxels without any loss.
    width : float
        Width s of the soft mask.

    Notes
    -----
    Section 3.2 of the paper; averaged over objects, since one Dice of pooled sums lets large objects dominate.
    """
    k, n = len(objects), embeddings.shape[1]

    def share(squared: Tensor, chunk: slice) -> tuple[Tensor, Tensor]:
        soft = _soft_masks(squared, width)
        here = slice(None) if len(soft) == k else (objects.owner >= chunk.start) & (objects.owner < chunk.stop)
        row = objects.owner[here] - chunk.start
        place = row * n + objects.voxels[here]
        hit = soft.view(-1).index_select(0, place)
        overlap = soft.new_zeros(len(soft)).index_add_(0, row, hit)
        area = soft.pow(2).sum(1) + objects.counts[chunk]
        slope = soft.pow(2).mul_((-4 * overlap / area.pow(2) / (width * k))[:, None])
        slope.view(-1).index_add_(0, place, hit * (2 / area / (width * k)).index_select(0, row))
        return (1 - 2 * overlap / area).sum() / k, slope

    return over_distances(anchors, embeddings, ignored, share)


def consistency(views: tuple[Tensor, Tensor], anchors: Tensor, counts: Tensor, width: float, ignored: Tensor) -> Tensor:
    """Mean over anchors of the Dice distance between the soft masks that f and g put around the same voxel.

    Parameters
    ----------
    views : tuple of Tensor
        (e, n) embeddings by f and by g.
    anchors : Tensor
        (a,) int64, flat indices of voxels.
    counts : Tensor
        (a,) bool, which anchors count.
    width : float
        Width s of the soft mask.
    ignored : Tensor
        (n,) bool, voxels without any loss.

    Notes
    -----
    Section 3.3 of the paper. g's side carries no gradient. Per anchor: averaging over rows or slices, as the authors'
    public code does, weighs empty rows like full ones.
    """
    embeddings, other = views[0], views[1].detach()
    anchors_g, squares_g = other.index_select(1, anchors).t(), squared_lengths(other, ignored)
    weights = counts / counts.sum().clamp(min=1)

    def share(squared: Tensor, chunk: slice) -> tuple[Tensor, Tensor]:
        soft = _soft_masks(squared, width)
        soft_g = _soft_masks(squared_distances(anchors_g[chunk], other, squares_g), width)
        overlap = (soft * soft_g).sum(1)
        area = soft.pow(2).sum(1) + soft_g.pow(2).sum(1)
        weight = weights[chunk]
        value = (weight * (1 - 2 * overlap / area)).sum()
        scale = 2 * weight / (width * area)
        slope = soft_g.mul_(scale[:, None]).addcmul_(soft, (-2 * scale * overlap / area)[:, None]).mul_(soft)
        return value, slope

    return over_distances(embeddings.index_select(1, anchors).t(), embeddings, ignored, share)


def _hinge(squared: Tensor, margin: float, count: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of max(0, margin - d)^2 / count, and its derivative by d^2."""
    apart = squared.clamp_(min=0).sqrt_()
    short = functional.relu(margin - apart)
    return short.pow(2).sum() / count, short.div_(apart.clamp_(min=BLUR)).div_(-count)


def _soft_masks(squared: Tensor, width: float) -> Tensor:
    """Soft masks exp(-d^2 / s), in place."""
    return squared.clamp_(0, FAINT * width).mul_(-1 / width).exp_()


def foreground(logits: Tensor, labels: Tensor) -> Tensor | None:
    """Balanced binary cross-entropy on objects against known background; None where a patch lacks one of them.

    Notes
    -----
    A patch without known background would teach "everything is foreground", so it is skipped.
    """
    inside, outside = labels > 0, labels == BACKGROUND
    if not outside.any():
        return None
    loss = 0.5 * functional.softplus(logits[outside]).mean()
    if inside.any():
        loss = loss + 0.5 * functional.softplus(-logits[inside]).mean()
    return loss
