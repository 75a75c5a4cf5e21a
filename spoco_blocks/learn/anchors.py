"""Where soft masks are centred: random voxels of objects and of unlabelled tissue.

All decisions stay on the device of the embeddings; random numbers come from the device of the generator.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spoco_blocks.learn.losses import Objects

# Unlabelled voxels among which anchors are sought. More than this many say nothing new: when 5 % of all voxels are not
# covered, none of them being among the candidates has a probability of 0.95^2048.
CANDIDATES = 2048
# Anchors are drawn until this fraction of the unlabelled voxels is not covered (section 3.3 of the paper).
UNCOVERED = 0.05


def sample_object_anchors(
    embeddings: Tensor, means: Tensor, objects: Objects, delta_var: float, generator: torch.Generator
) -> Tensor:
    """Draw for each object one of its voxels within delta_var of its mean; the nearest to the mean if there is none.

    Parameters
    ----------
    embeddings : Tensor
        (e, n).
    means : Tensor
        (k, e), means of the objects.
    objects : Objects
        The objects.
    delta_var : float
        Pull margin.
    generator : torch.Generator
        Where voxels are drawn from.

    Returns
    -------
    Tensor
        (k,) int64, flat indices of voxels.

    Notes
    -----
    As the paper draws it; the authors' public code puts the anchor at the mean.
    """
    with torch.no_grad():
        own = embeddings.index_select(1, objects.voxels)
        squared = (own - means.t().index_select(1, objects.owner)).pow(2).sum(0)
        draw = torch.rand(len(squared), generator=generator, device=generator.device, dtype=torch.float32)
        rank = torch.where(squared <= delta_var**2, 1 + draw.to(squared), -squared)
        best = rank.new_full((len(objects),), -torch.inf).scatter_reduce(0, objects.owner, rank, "amax")
        chosen = torch.where(rank == best.index_select(0, objects.owner), objects.voxels, -1)
        # from 0 up, so that embeddings that are not numbers end in a loss that is not one, for training to deal with
        return chosen.new_zeros(len(objects)).scatter_reduce(0, objects.owner, chosen, "amax")


def draw_anchors(
    views: tuple[Tensor, Tensor], unlabelled: Tensor, count: int, delta_var: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw anchors among unlabelled voxels, each where no earlier one has covered.

    Parameters
    ----------
    views : tuple of Tensor
        (e, n) embeddings by f and by g.
    unlabelled : Tensor
        (u,) int64, flat indices of the unlabelled voxels.
    count : int
        Anchors at most.
    delta_var : float
        A voxel within this distance of an anchor, in either view, is covered.
    generator : torch.Generator
        Where voxels are drawn from.

    Returns
    -------
    Tensor
        (count,) int64, flat indices of voxels.
    Tensor
        (count,) bool, False for those that came after 5 % or less were left uncovered: they do not count.

    Notes
    -----
    Section 3.3 of the paper. Drawing any number of unlabelled voxels in random order and taking the first that is not
    covered is the paper's uniform draw among the uncovered voxels. Above CANDIDATES voxels the uncovered fraction is an
    estimate, with a standard error of 0.5 % where it is 5 %.
    """
    device = generator.device
    if len(unlabelled) <= CANDIDATES:
        order = torch.randperm(len(unlabelled), generator=generator, device=device)
    else:
        order = torch.randint(len(unlabelled), (CANDIDATES,), generator=generator, device=device)
    candidates = unlabelled.index_select(0, order.to(unlabelled.device))
    chosen, counts = [], []
    with torch.no_grad():
        points = [view.index_select(1, candidates) for view in views]
        alive = torch.ones(len(candidates), dtype=torch.bool, device=unlabelled.device)
        for _ in range(count):
            counts.append(alive.sum() > UNCOVERED * len(alive))
            first = alive.to(torch.uint8).argmax()[None]
            chosen.append(first)
            for view in points:
                alive &= (view - view.index_select(1, first)).pow(2).sum(0) > delta_var**2
    return candidates.index_select(0, torch.cat(chosen)), torch.stack(counts)
