"""All loss terms of one patch, weighted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spoco_blocks.grid import Triple
from spoco_blocks.learn import losses
from spoco_blocks.learn.affinities import affinity_loss
from spoco_blocks.learn.anchors import draw_anchors, sample_object_anchors
from spoco_blocks.learn.label_values import IGNORE, UNLABELLED
from spoco_blocks.learn.losses import Objects
from spoco_blocks.settings.loss import LossSettings

# Below this fraction of unlabelled voxels a patch is as good as covered (section 3.3 of the paper).
ENOUGH_UNLABELLED = 0.05
# Stands for a push radius of zero voxels: only objects whose boxes overlap.
TOUCHING = 1e-6


@dataclass(frozen=True)
class Objective:
    """The loss of a patch.

    Attributes
    ----------
    settings : LossSettings
        Weights and margins.
    coordinate_scale : tuple of float or None
        Voxels (z, y, x) over which position adds 1 to the first three channels; None = no coordinates.
    push_radius : tuple of float or None
        Objects whose boxes are farther apart than this (voxels, z, y, x) are not pushed; None = all are.
    offsets : tuple of tuple of int
        Offsets of the network's affinity head.
    """

    settings: LossSettings
    coordinate_scale: tuple[float, float, float] | None
    push_radius: tuple[float, float, float] | None
    offsets: tuple[Triple, ...] = ()

    def __call__(
        self, output: Tensor, output_g: Tensor | None, labels: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Give the weighted terms of one patch; their sum is the loss.

        Parameters
        ----------
        output : Tensor
            (embedding_channels + 1 + offsets, z, y, x), what f gives, in any floating dtype. The loss is worked out in
            float32 (in float64 where that is given), whatever autocast is around it.
        output_g : Tensor or None
            The same of g for another view; None leaves the consistency term out.
        labels : Tensor
            (z, y, x) int64: > 0 objects, 0 unlabelled, -1 background, -2 ignore.
        generator : torch.Generator
            Where anchors are drawn from.

        Returns
        -------
        dict of str to Tensor
            Scalars by the name of their weight in the settings. Terms with weight 0 and terms that the patch says
            nothing about are left out.

        Notes
        -----
        Memory is linear in voxels and in objects times embedding channels, beside a bounded chunk of distances and one
        byte per pair of objects. Nothing waits for the device once for each anchor or object.
        """
        loss, flat = self.settings, labels.reshape(-1)
        with torch.autocast(labels.device.type, enabled=False):
            plain, logits, pairs = self._split(output)
            embeddings = positioned(plain, self.coordinate_scale)
            terms = self._object_terms(plain, embeddings, labels, generator)
            unlabelled = torch.nonzero(flat == UNLABELLED)[:, 0]
            if output_g is not None and loss.consistency and len(unlabelled) > ENOUGH_UNLABELLED * len(flat):
                views = embeddings, positioned(self._split(output_g)[0], self.coordinate_scale)
                anchors, count = draw_anchors(views, unlabelled, loss.consistency_anchors, loss.delta_var, generator)
                terms["consistency"] = loss.consistency * losses.consistency(
                    views, anchors, count, losses.softness(loss), flat == IGNORE
                )
            foreground = losses.foreground(wide(logits).reshape(-1), flat) if loss.foreground else None
            if foreground is not None:
                terms["foreground"] = loss.foreground * foreground
            affinities = affinity_loss(wide(pairs), labels, self.offsets) if loss.affinity else None
            if affinities is not None:
                terms["affinity"] = loss.affinity * affinities
        return terms

    def _split(self, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take embeddings, foreground logit and affinity logits apart."""
        pairs = len(self.offsets)
        return torch.split(output, [len(output) - 1 - pairs, 1, pairs])  # type: ignore[return-value]

    def _object_terms(
        self, plain: Tensor, embeddings: Tensor, labels: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        loss, flat = self.settings, labels.reshape(-1)
        objects = losses.find_objects(labels)
        if not len(objects):
            return {}
        means = losses.object_means(embeddings, objects)
        terms = {}
        if loss.pull:
            terms["pull"] = loss.pull * losses.pull(embeddings, means, objects, loss.delta_var)
        if loss.push:
            near = None if self.push_radius is None else near_pairs(objects, labels.shape, self.push_radius)
            terms["push"] = loss.push * losses.push(means, loss.delta_dist, near)
        if loss.regulariser:
            # Means without coordinates differ from those with them by a constant.
            shift = losses.object_means(wide(plain.detach()).flatten(1), objects) - means.detach()
            terms["regulariser"] = loss.regulariser * losses.regulariser(means + shift)
        if loss.dice:
            anchors = means
            if loss.anchor == "sampled":
                drawn = sample_object_anchors(embeddings, means, objects, loss.delta_var, generator)
                anchors = embeddings.index_select(1, drawn).t()
            terms["dice"] = loss.dice * losses.instance_dice(
                anchors, embeddings, objects, flat == IGNORE, losses.softness(loss)
            )
        unlabelled = flat == UNLABELLED
        if loss.unlabelled_push and unlabelled.any():
            terms["unlabelled_push"] = loss.unlabelled_push * losses.unlabelled_push(
                means, embeddings, unlabelled, loss.delta_dist
            )
        return terms


def positioned(plain: Tensor, scale: tuple[float, float, float] | None) -> Tensor:
    """Give embeddings (e, n) with coordinates, of (e, z, y, x) without, moved so that their mean is zero.

    Notes
    -----
    Moving all of them changes no distance, and keeps the digits of |e|^2 + |a|^2 - 2 e.a.
    """
    moved = wide(plain)
    moved = moved - moved.detach().mean((1, 2, 3), keepdim=True)
    if scale is not None:
        for axis, voxels in enumerate(scale):
            extent = moved.shape[axis + 1]
            position = torch.arange(extent, dtype=moved.dtype, device=moved.device) - (extent - 1) / 2
            with torch.no_grad():  # a constant is added, which is no concern of the backward pass
                moved[axis] += (position / voxels).view([-1 if other == axis else 1 for other in range(3)])
    return moved.flatten(1)


def wide(values: Tensor) -> Tensor:
    """Give values in float32, or in float64 where they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def near_pairs(objects: Objects, shape: torch.Size, radius: tuple[float, float, float]) -> Tensor:
    """Tell which objects' boxes lie within a radius (voxels, z, y, x) of each other: (k, k) bool.

    Notes
    -----
    The distance is that of the nearest voxels of the two boxes, Euclidean in units of the radius, which differs between
    axes where voxels are anisotropic. Nothing larger than (k, k) is made.
    """
    near = torch.zeros(len(objects), len(objects), device=objects.voxels.device)
    for position, reach in zip(torch.unravel_index(objects.voxels, shape), radius, strict=True):
        start = position.new_zeros(len(objects)).scatter_reduce(0, objects.owner, position, "amin", include_self=False)
        stop = position.new_zeros(len(objects)).scatter_reduce(0, objects.owner, position, "amax", include_self=False)
        gap = torch.maximum(start[:, None] - stop[None], start[None] - stop[:, None]).clamp(min=0)
        near += (gap / max(reach, TOUCHING)).pow(2)
    return near <= 1
