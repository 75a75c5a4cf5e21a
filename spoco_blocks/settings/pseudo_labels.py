"""Rounds of pseudo-labels: a model segments its training volumes, and another learns from what is trustworthy there."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from spoco_blocks.settings.base import Count, Fraction, Section
from spoco_blocks.settings.segmentation import Segmenting


class PseudoLabelSettings(Section):
    """Train on the labels, segment the training volumes with f and g, keep what both agree on, train again on both.

    Only the part of `labels.region` that trains is segmented: no other part is looked at.
    """

    rounds: Annotated[int, Field(ge=0, le=9)] = 0
    """How often; 0 = learn from the labels alone."""
    agreement: Annotated[float, Field(ge=0.5, lt=1)] = 0.8
    """A segment of g is kept when its IoU with a segment of f is above this."""
    min_voxels: Count = 100
    """Segments under this size are not kept."""
    max_contradicted: Fraction = 0.1
    """Nor are those of which more than this fraction lies on annotated objects or known background (shells aside)."""
    background: Fraction = 0.08
    """Voxels to which f and g both give a foreground probability below this count as background; 0 = none do."""
    shell: bool = True
    """Kept segments get a shell of background as annotated objects do (labels.shell_voxels)."""
    continue_training: bool = False
    """Start from the weights of the round before instead of afresh."""
    segmentation: Segmenting = Segmenting()
    """How the training volumes are segmented."""
