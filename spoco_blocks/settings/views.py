"""How patches are varied in training."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from spoco_blocks.settings.base import CountOrZero, Fraction, NotNegative, Section


class ViewSettings(Section):
    """How patches are varied in training; 0 switches a change off. Brightness is in normalised units: the volume's
    dark end is -1, its bright end 3.
    """

    warp_probability: Fraction = 0.4
    """Part of the patches that are rotated, scaled and deformed; flips and quarter turns are always drawn."""
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    """Rotation at most, in the planes whose voxels are square. What turns out of the patch is ignored."""
    scale: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Objects become larger or smaller by this factor more than 1 at most."""
    elastic_voxels: NotNegative = 4.0
    """Elastic displacement at most, in voxels of the finest axis; a quarter of elastic_spacing_voxels at most."""
    elastic_spacing_voxels: Annotated[float, Field(ge=4)] = 16.0
    """Length over which the elastic displacement changes, in voxels of the finest axis."""
    gain: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Brightness is multiplied by 1 - gain to 1 + gain."""
    offset: NotNegative = 0.3
    """Added to or taken from the brightness at most."""
    gamma: NotNegative = 0.25
    """Exponent of the brightness, 1 / (1 + gamma) to 1 + gamma; in half of the views."""
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Differences from the patch's mean are multiplied by 1 - contrast to 1 + contrast; in half of the views."""
    blur_voxels: NotNegative = 1.0
    """Standard deviation of a Gaussian blur within planes, at most; in half of the views."""
    noise: NotNegative = 0.3
    """Standard deviation of Gaussian noise at most; in half of the views."""
    shot_noise: NotNegative = 0.2
    """Standard deviation at the bright end of noise whose variance grows with brightness, at most; in half of the
    views."""
    missing_sections: Fraction = 0.02
    """Where z is coarse: part of the sections that are blank or repeat a neighbour."""
    shifted_sections: Fraction = 0.02
    """Where z is coarse: part of the sections that are misaligned."""
    shift_voxels: CountOrZero = 3
    """Misalignment at most, within the plane."""

    @model_validator(mode="after")
    def _never_folds(self) -> ViewSettings:
        if self.elastic_voxels > self.elastic_spacing_voxels / 4:
            raise ValueError(
                f"elastic_voxels of {self.elastic_voxels:g} folds tissue over itself; use a quarter of "
                f"elastic_spacing_voxels at most, here {self.elastic_spacing_voxels / 4:g}"
            )
        return self
