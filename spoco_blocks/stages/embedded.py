"""Embeddings as clustering sees them: with coordinates, in the frame of the box that is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.clustering.exact import rounded
from spoco_blocks.grid import Box, Triple
from spoco_blocks.stages.output import Output, OutputSource


@dataclass(frozen=True)
class Embedded:
    """The network's output, and how it is understood.

    Attributes
    ----------
    output : OutputSource
        Stored or predicted.
    threshold : float
        Foreground probability above which a voxel belongs to an object.
    coordinate_scale : tuple of float or None
        Voxels over which position adds 1 to the first three channels.
    scale : tuple of float or None
        What 1 means in each channel of int8 embeddings.
    """

    output: OutputSource
    threshold: float
    coordinate_scale: tuple[float, float, float] | None
    scale: tuple[float, ...] | None = None

    def read(self, box: Box) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read (c, z, y, x) embeddings with coordinates from the box's start, and the (z, y, x) foreground."""
        return self.understand(self.output.read(box))

    def understand(self, output: Output, start: Triple = (0, 0, 0)) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Give embeddings with coordinates, counted from `start`, and the foreground, of the output for a box.

        Notes
        -----
        Coordinates count from the box, not from the volume: position / scale in float32 would lose the embedding's
        digits at the far end of a large volume. `to_volume` and `to_box` carry means from one frame to the other.
        """
        # With a threshold of 0 there is no background but where nothing was looked for, which is stored as 0.
        foreground = output.foreground > self.threshold * 255
        return self.placed(output.embeddings, start), foreground

    def in_volume(self, output: Output, start: Triple) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Give the same in the frame of the volume, rounded, of the output for a box that starts at `start`.

        Notes
        -----
        Whichever box a voxel is read with, its embedding is the same to the last bit, and sums of embeddings do not
        depend on the order (`clustering.exact`). Farther than 4096 coordinate scales from the origin digits are lost.
        """
        embeddings, foreground = self.understand(output, start)
        return rounded(embeddings), foreground

    def placed(self, stored: NDArray[Any], start: Triple = (0, 0, 0)) -> NDArray[np.float32]:
        """Give (c, z, y, x) embeddings as they are stored in their own unit, with coordinates, counted from `start`."""
        embeddings = stored.astype(np.float32)
        if self.scale is not None:
            embeddings *= np.array(self.scale, np.float32)[:, None, None, None]
        if self.coordinate_scale is not None:
            for axis, (first, scale) in enumerate(zip(start, self.coordinate_scale, strict=True)):
                position = (np.arange(first, first + embeddings.shape[1 + axis]) / scale).astype(np.float32)
                embeddings[axis] += position.reshape([-1 if a == axis else 1 for a in range(3)])
        return embeddings

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
