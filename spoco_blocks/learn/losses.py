"""The loss terms of SPOCO on one patch (Wolny et al., CVPR 2022, section 3). Pure functions of tensors.

Shapes: n voxels, e embedding channels, k objects. Distances are Euclidean and in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from spoco_blocks.settings.sections import LossSettings

UNLABELLED, BACKGROUND, IGNORE = 0, -1, -2
# An object cut to fewer voxels than this by the patch has no mean worth learning from.
MIN_VOXELS = 16
# Keeps the gradient of a distance finite where two points coincide.
EPSILON = 1e-8


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
    """Mean embedding (k, e) of each object from embeddings (n, e), by scatter-add."""
    sums = embeddings.new_zeros(len(objects), embeddings.shape[1])
    return sums.index_add(0, objects.owner, embeddings[objects.voxels]) / objects.counts[:, None]


def per_object(values: Tensor, objects: Objects) -> Tensor:
    """Mean over each object (k,) of values (v,) given at its voxels."""
    return values.new_zeros(len(objects)).index_add(0, objects.owner, values) / objects.counts


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance along the last axis, with a finite gradient at zero."""
    return ((a - b).pow(2).sum(-1) + EPSILON).sqrt()


def pull(embeddings: Tensor, means: Tensor, objects: Objects, delta_var: float) -> Tensor:
    """Mean over objects of the mean over voxels of max(0, |e_i - mu_k| - delta_var)^2."""
    apart = distance(embeddings[objects.voxels], means[objects.owner])
    return per_object(functional.relu(apart - delta_var).pow(2), objects).mean()


def push(means: Tensor, delta_dist: float, near: Tensor | None = None) -> Tensor:
    """Mean over ordered pairs k != l of max(0, 2 delta_dist - |mu_k - mu_l|)^2.

    Parameters
    ----------
    means : Tensor
        (k, e).
    delta_dist : float
        Push margin.
    near : Tensor, optional
        (k, k) bool; only these pairs are pushed.
    """
    pairs = ~torch.eye(len(means), dtype=torch.bool, device=means.device)
    if near is not None:
        pairs &= near
    if not pairs.any():
        return means.sum() * 0.0
    apart = distance(means[:, None], means[None])
    return functional.relu(2 * delta_dist - apart[pairs]).pow(2).mean()


def regulariser(means: Tensor) -> Tensor:
    """Mean length of the means."""
    return (means.pow(2).sum(1) + EPSILON).sqrt().mean()


def squared_distances(anchors: Tensor, embeddings: Tensor) -> Tensor:
    """Squared distances (k, n) as |a|^2 + |e|^2 - 2 a.e: no (k, n, e) array is made."""
    squares = anchors.pow(2).sum(1)[:, None] + embeddings.pow(2).sum(1)[None]
    return (squares - 2 * anchors @ embeddings.t()).clamp(min=0)


def unlabelled_push(squared: Tensor, unlabelled: Tensor, delta_dist: float) -> Tensor:
    """Mean over objects and unlabelled voxels of max(0, delta_dist - |e_i - mu_k|)^2; squared is (k, n)."""
    apart = (squared[:, unlabelled] + EPSILON).sqrt()
    return functional.relu(delta_dist - apart).pow(2).mean()


def softness(loss: LossSettings) -> float:
    """Width s of the soft mask exp(-d^2 / s), which is mask_threshold at a distance of delta_var."""
    return loss.delta_var**2 / -math.log(loss.mask_threshold)


def instance_dice(soft_masks: Tensor, objects: Objects, ignored: Tensor) -> Tensor:
    """Mean over objects of the Dice distance between soft masks (k, n) and the annotation.

    Notes
    -----
    Section 3.2 of the paper; averaged over objects, since one Dice of pooled sums lets large objects dominate.
    """
    hit = soft_masks[objects.owner, objects.voxels]
    overlap = hit.new_zeros(len(objects)).index_add(0, objects.owner, hit)
    area = (soft_masks.pow(2) * ~ignored).sum(1) + objects.counts
    return (1 - 2 * overlap / area).mean()


def draw_anchors(
    embeddings: Tensor, unlabelled: Tensor, count: int, delta_var: float, generator: torch.Generator
) -> Tensor:
    """Draw anchors among unlabelled voxels, none within delta_var of an earlier one: (a,) flat indices, a <= count.

    Notes
    -----
    The paper's covering by soft masks, decided among the candidates instead of over all voxels: what an anchor covers
    is removed from the candidates.
    """
    draw = torch.randint(len(unlabelled), (6 * count,), generator=generator)
    candidates = unlabelled[draw.to(unlabelled.device)]
    points = embeddings[candidates]
    near = torch.cdist(points, points) <= delta_var
    alive = torch.ones(len(candidates), dtype=torch.bool)
    near = near.cpu()
    chosen: list[int] = []
    for index in range(len(candidates)):
        if alive[index]:
            chosen.append(index)
            alive &= ~near[index]
            if len(chosen) == count:
                break
    return candidates[torch.tensor(chosen, device=candidates.device)]


def consistency(embeddings_f: Tensor, embeddings_g: Tensor, anchors: Tensor, width: float, ignored: Tensor) -> Tensor:
    """Mean over anchors of the Dice distance between the soft masks that f and g put around the same voxel.

    Notes
    -----
    Section 3.3 of the paper. g's side carries no gradient. Per anchor: averaging over rows or slices, as the authors'
    public code does, weighs empty rows like full ones.
    """
    masks_f = torch.exp(-squared_distances(embeddings_f[anchors], embeddings_f) / width) * ~ignored
    with torch.no_grad():
        masks_g = torch.exp(-squared_distances(embeddings_g[anchors], embeddings_g) / width) * ~ignored
    area = masks_f.pow(2).sum(1) + masks_g.pow(2).sum(1)
    return (1 - 2 * (masks_f * masks_g).sum(1) / area).mean()


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
