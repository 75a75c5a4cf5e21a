"""The section that weighs the terms of the loss."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spoco_blocks.settings.base import Count, NotNegative, Positive, Section


class LossSettings(Section):
    """Weights and margins of the loss (SPOCO, CVPR 2022, section 3)."""

    delta_var: Positive = 0.5
    """Voxels farther than this from their object's mean are pulled in."""
    delta_dist: Positive = 2.0
    """Means nearer than twice this are pushed apart."""
    mask_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Value of the soft mask at a distance of delta_var."""
    anchor: Literal["mean", "sampled"] = "mean"
    """Centre of an object's soft mask: its mean, or a random voxel of it within delta_var of its mean."""
    pull: NotNegative = 1.0
    """Weight: voxels towards their object's mean."""
    push: NotNegative = 1.0
    """Weight: means of objects away from each other."""
    unlabelled_push: NotNegative = 1.0
    """Weight: unlabelled voxels away from the annotated objects' means."""
    dice: NotNegative = 1.0
    """Weight: soft mask of each object against its annotation."""
    consistency: NotNegative = 1.0
    """Weight: soft masks around unlabelled anchors in two views."""
    regulariser: NotNegative = 1e-3
    """Weight: length of the objects' means."""
    foreground: NotNegative = 1.0
    """Weight: foreground head on annotated objects and known background."""
    affinity: NotNegative = 5.0
    """Weight: affinities around annotated objects. Large, because the other terms would outweigh where objects end."""
    push_radius: NotNegative | None = None
    """Objects farther apart than this (nm) are not pushed; null = all pairs in a patch are."""
    consistency_anchors: Count = 12
    """Anchors drawn in each patch for the consistency term, at most."""
