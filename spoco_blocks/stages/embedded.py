"""Reading stored embeddings as clustering sees them: with coordinates, in the frame of the box that is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.grid import Box, Triple
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.sources import open_source


@dataclass(frozen=True)
class Embedded:
    """The output of stage `embed`.

    Attributes
    ----------
    embeddings, foreground : Source
        The two arrays.
    threshold : float
        Foreground probability above which a voxel belongs to an object.
    coordinate_scale : tuple of float or None
        Voxels over which position adds 1 to the first three channels.
    """

    embeddings: Source
    foreground: Source
    threshold: float
    coordinate_scale: tuple[float, float, float] | None

    def read(self, box: Box) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read (c, z, y, x) embeddings with coordinates from the box's start, and the (z, y, x) foreground.

        Notes
        -----
        Coordinates count from the box, not from the volume: position / scale in float32 would lose the embedding's
        digits at the far end of a large volume. `to_volume` and `to_box` carry means from one frame to the other.
        """
        probability = open_source(self.foreground).read(box)
        # A threshold of 0 means that there is no background, whatever was rounded down.
        foreground = probability > self.threshold * 255 if self.threshold else np.ones(probability.shape, np.bool_)
        embeddings = open_source(self.embeddings).read(box).astype(np.float32)
        if self.coordinate_scale is not None:
            for axis, (extent, scale) in enumerate(zip(box.shape, self.coordinate_scale, strict=True)):
                position = (np.arange(extent) / scale).astype(np.float32)
                embeddings[axis] += position.reshape([-1 if a == axis else 1 for a in range(3)])
        return embeddings, foreground

    def to_volume(self, vectors: NDArray[np.floating[Any]], start: Triple) -> NDArray[np.float64]:
        """Carry (k, c) embeddings from the frame of a box that starts at `start` to that of the volume."""
        return self._moved(vectors, start, 1.0)

    def to_box(self, vectors: NDArray[np.floating[Any]], start: Triple) -> NDArray[np.float64]:
        """Undo `to_volume`."""
        return self._moved(vectors, start, -1.0)

    def _moved(self, vectors: NDArray[np.floating[Any]], start: Triple, sign: float) -> NDArray[np.float64]:
        moved = vectors.astype(np.float64)
        if self.coordinate_scale is not None and len(moved):
            moved[:, :3] += sign * np.array(start) / np.array(self.coordinate_scale)
        return moved


def embedded(
    embeddings: Path, foreground: Path, threshold: float, scale: tuple[float, float, float] | None
) -> Embedded:
    """Name the stores of a segmentation."""
    return Embedded(Source(uri=str(embeddings)), Source(uri=str(foreground)), threshold, scale)
