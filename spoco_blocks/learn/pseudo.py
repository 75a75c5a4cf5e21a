"""Pseudo-labels: what two networks agree on in the part of a volume that trains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.grid import Box, Triple
from spoco_blocks.learn.label_values import BACKGROUND, UNLABELLED
from spoco_blocks.learn.supervision import near
from spoco_blocks.volumes import Volume


@dataclass(frozen=True)
class PseudoLabels:
    """The pseudo-labels of one volume, which say something about unlabelled voxels only.

    Attributes
    ----------
    labels : Volume
        Ids 1..n, stored for `part` alone.
    background : Volume
        Non-zero where both networks see background, stored for `part` alone.
    part : Box
        The part of the volume that the two show; nothing is said about the rest.
    shell : tuple of int
        Voxels (z, y, x) outside a pseudo-object that count as background.
    """

    labels: Volume
    background: Volume
    part: Box
    shell: Triple

    def add_to(self, known: NDArray[np.int32], box: Box, annotated: int) -> None:
        """Fill in the unlabelled voxels of a box.

        Parameters
        ----------
        known : ndarray of int32, shape (z, y, x)
            What is known without pseudo-labels; changed in place.
        box : Box
            Where that is in the volume. Shells that come from outside of it are missing.
        annotated : int
            Number of annotated objects; pseudo-object i becomes ``annotated + i``.
        """
        common = box.intersection(self.part)
        if not common.size:
            return
        stored = common.relative_to(self.part.start)
        here = known[common.relative_to(box.start).slices]
        ids = self.labels.read(stored).astype(np.int32)
        empty = near(ids > 0, self.shell) | (self.background.read(stored) != 0)
        said = np.where(ids > 0, ids + annotated, np.where(empty, BACKGROUND, UNLABELLED))
        here[...] = np.where(here == UNLABELLED, said, here)
