"""All loss terms of one patch, weighted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spoco_blocks.grid import Triple
from spoco_blocks.learn import losses
from spoco_blocks.learn.affinities import affinity_loss
from spoco_blocks.learn.losses import IGNORE, UNLABELLED, Objects
from spoco_blocks.settings.sections import LossSettings

# Below this fraction of unlabelled voxels a patch is as good as covered (section 3.3 of the paper).
ENOUGH_UNLABELLED = 0.05


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
            (embedding_channels + 1 + offsets, z, y, x), what f gives.
        output_g : Tensor or None
            The same of g for another view; None leaves the consistency term out.
        labels : Tensor
            (z, y, x) int64: > 0 objects, 0 unlabelled, -1 background, -2 ignore.
        generator : torch.Generator
            Where anchors are drawn from.
        """
        loss = self.settings
        shape = labels.shape
        channels = len(output) - 1 - len(self.offsets)
        plain = output[:channels].float().flatten(1).t()
        embeddings = self._positioned(plain, shape)
        flat = labels.reshape(-1)
        ignored = flat == IGNORE
        unlabelled = torch.nonzero(flat == UNLABELLED)[:, 0]
        terms = self._object_terms(plain, embeddings, labels, unlabelled, ignored)
        if output_g is not None and loss.consistency and len(unlabelled) > ENOUGH_UNLABELLED * len(flat):
            other = self._positioned(output_g[:channels].float().flatten(1).t(), shape)
            anchors = losses.draw_anchors(other, unlabelled, loss.consistency_anchors, loss.delta_var, generator)
            terms["consistency"] = loss.consistency * losses.consistency(
                embeddings, other, anchors, losses.softness(loss), ignored
            )
        foreground = losses.foreground(output[channels].float().reshape(-1), flat)
        if foreground is not None:
            terms["foreground"] = loss.foreground * foreground
        affinities = affinity_loss(output[channels + 1 :], labels, self.offsets)
        if affinities is not None:
            terms["affinity"] = loss.affinity * affinities
        return terms

    def _object_terms(
        self, plain: Tensor, embeddings: Tensor, labels: Tensor, unlabelled: Tensor, ignored: Tensor
    ) -> dict[str, Tensor]:
        loss = self.settings
        objects = losses.find_objects(labels)
        if not len(objects):
            return {}
        means = losses.object_means(embeddings, objects)
        squared = losses.squared_distances(means, embeddings)
        near = None if self.push_radius is None else near_pairs(objects, labels.shape, self.push_radius)
        terms = {
            "pull": loss.pull * losses.pull(embeddings, means, objects, loss.delta_var),
            "push": loss.push * losses.push(means, loss.delta_dist, near),
            "regulariser": loss.regulariser * losses.regulariser(losses.object_means(plain, objects)),
            "dice": loss.dice * losses.instance_dice(torch.exp(-squared / losses.softness(loss)), objects, ignored),
        }
        if len(unlabelled):
            terms["unlabelled_push"] = loss.unlabelled_push * losses.unlabelled_push(
                squared, unlabelled, loss.delta_dist
            )
        return terms

    def _positioned(self, embeddings: Tensor, shape: torch.Size) -> Tensor:
        if self.coordinate_scale is None:
            return embeddings
        axes = [
            torch.arange(extent, dtype=torch.float32, device=embeddings.device) / scale
            for extent, scale in zip(shape, self.coordinate_scale, strict=True)
        ]
        positions = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        return torch.cat([embeddings[:, :3] + positions, embeddings[:, 3:]], 1)


def near_pairs(objects: Objects, shape: torch.Size, radius: tuple[float, float, float]) -> Tensor:
    """Tell which objects' boxes lie within a radius (voxels, z, y, x) of each other: (k, k) bool."""
    positions = torch.stack(torch.unravel_index(objects.voxels, shape), 1)
    owner = objects.owner[:, None].expand(-1, 3)
    start = positions.new_zeros(len(objects), 3).scatter_reduce(0, owner, positions, "amin", include_self=False)
    stop = positions.new_zeros(len(objects), 3).scatter_reduce(0, owner, positions, "amax", include_self=False)
    gap = torch.maximum(start[:, None] - stop[None], start[None] - stop[:, None])
    return (gap <= torch.tensor(radius, device=gap.device)).all(2)
