"""Predicting an array and its mirror images, and taking the mean."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.grid import Box, Triple, triple
from spoco_blocks.learn.folded import FoldedNetwork
from spoco_blocks.learn.predict import Prediction, Predictor


class Mirrored:
    """Stands in for a `Predictor`: foreground and affinities are means over mirror images, embeddings are as they are.

    Parameters
    ----------
    predictor : Predictor
        Predicts each image.

    Notes
    -----
    Mirrored along each axis that the network looks along, and with y and x exchanged where it looks along both alike:
    16 images of a volume, 8 of a plane. Embeddings of mirror images need not agree, and are not averaged. The affinity
    of a voxel and the one an offset away is found in a mirror image at the other of the two, so that for each box the
    network is asked for as much more as offsets are long; what lies behind the array's end is left out of the mean.
    Blockwise equals whole prediction as for `Predictor`: arrays are padded to the stride first.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        plan = predictor.network.plan
        axes = [axis for axis in range(3) if any(kernel[axis] > 1 for kernel in plan.kernels)]
        self._images = [
            (tuple(axis for axis, mirrored in zip(axes, chosen, strict=True) if mirrored), swapped)
            for swapped in ((False, True) if _alike(plan.kernels + plan.pools, plan.offsets) else (False,))
            for chosen in product((False, True), repeat=len(axes))
        ]

    @property
    def network(self) -> FoldedNetwork:
        """The network."""
        return self._predictor.network

    @property
    def device(self) -> str:
        """Where it computes."""
        return self._predictor.device

    @property
    def halo(self) -> Triple:
        """Margin beyond which no input voxel can reach an output."""
        return self.network.plan.mirrored_halo

    def __call__(self, raw: NDArray[np.float32], keep: Box | None = None) -> Prediction:
        """Predict an array, or a box of it; see `Predictor`."""
        plan, whole = self.network.plan, Box.of_shape(triple(raw.shape[1:]))
        keep = keep or whole
        margin = [-n % s for n, s in zip(whole.shape, plan.stride, strict=True)]
        padded = np.pad(raw, [(0, 0), *((0, m) for m in margin)], mode="edge")
        grown = Box(
            triple(max(0, a - r) for a, r in zip(keep.start, plan.reach, strict=True)),
            triple(min(b + r, n) for b, r, n in zip(keep.stop, plan.reach, whole.shape, strict=True)),
        )
        total = np.zeros((1 + len(plan.offsets), *grown.shape), np.float32)
        weights = np.zeros_like(total)
        for mirrored, swapped in self._images:
            predicted, found = self._predict_image(padded, grown, mirrored, swapped)
            if not mirrored and not swapped:
                embeddings = predicted.embeddings[:, *keep.relative_to(grown.start).slices]
            for number, offset in enumerate(((0, 0, 0), *plan.offsets)):
                turned = triple(o if axis in mirrored else 0 for axis, o in enumerate(offset))
                if turned not in (offset, (0, 0, 0)):
                    # Turned in part, it is no offset of the network.
                    continue
                _add_shifted(total[number], weights[number], found[number], turned)
        mean = (total / weights)[:, *keep.relative_to(grown.start).slices]
        return Prediction(
            np.ascontiguousarray(embeddings), np.ascontiguousarray(mean[0]), np.ascontiguousarray(mean[1:])
        )

    def memory_bytes(self, shape: Triple, keep: Box | None = None) -> int:
        """Project the most memory that predicting an array of this shape takes on a CPU; see `Predictor`."""
        plan = self.network.plan
        largest = triple(n + s + 2 * r for n, s, r in zip(shape, plan.stride, plan.reach, strict=True))
        means = 3 * 4 * (1 + len(plan.offsets)) * Box.of_shape(largest).size
        return self._predictor.memory_bytes(largest, None) + means

    def _predict_image(
        self, padded: NDArray[np.float32], box: Box, mirrored: tuple[int, ...], swapped: bool
    ) -> tuple[Prediction, NDArray[np.float32]]:
        """Predict a box in a mirror image; and, turned back, foreground and the network's affinities."""
        plan, order = self.network.plan, (0, 2, 1) if swapped else (0, 1, 2)
        turned = np.flip(padded, tuple(axis + 1 for axis in mirrored)).transpose(0, *(axis + 1 for axis in order))
        extent = padded.shape[1:]
        start, stop = (list(edge) for edge in (box.start, box.stop))
        for axis in mirrored:
            start[axis], stop[axis] = extent[axis] - box.stop[axis], extent[axis] - box.start[axis]
        where = Box(triple(start[axis] for axis in order), triple(stop[axis] for axis in order))
        predicted = self._predictor(np.ascontiguousarray(turned), where)
        numbers = [plan.offsets.index(triple(offset[axis] for axis in order)) for offset in plan.offsets]
        found = np.concatenate([predicted.foreground[None], predicted.affinities[numbers]])
        return predicted, np.flip(
            found.transpose(0, *(axis + 1 for axis in order)), tuple(axis + 1 for axis in mirrored)
        )


def _alike(steps: tuple[Triple, ...], offsets: tuple[Triple, ...]) -> bool:
    """Whether a network looks along y as it looks along x."""
    return all(y == x for _, y, x in steps) and all((z, x, y) in offsets for z, y, x in offsets)


def _add_shifted(
    total: NDArray[np.float32], weights: NDArray[np.float32], found: NDArray[np.float32], offset: Triple
) -> None:
    """Add to each voxel what was found an offset away, where that is inside."""
    here = tuple(slice(max(0, -o), max(0, n - max(0, o))) for o, n in zip(offset, total.shape, strict=True))
    there = tuple(slice(max(0, o), max(0, n - max(0, -o))) for o, n in zip(offset, total.shape, strict=True))
    total[here] += found[there]
    weights[here] += 1
