"""What blocks know of their fragments, summed over each segment, one block at a time."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.engine.ledger import Tables
from spoco_blocks.kernels.shape import PRODUCTS
from spoco_blocks.stages.stitch.mapped import Workspace


@dataclass(frozen=True)
class Sums:
    """What adds up over the pieces of a segment; entry 0 stands for the background.

    Attributes
    ----------
    voxels, fragments, blocks, coreless : (n,) int64
        Voxels; pieces, and those without a core; blocks it reaches into.
    start, stop, faces : (n, 3) int64
        The box, and the voxel faces at which it ends along each axis.
    centre, squares : (n, 3), (n, 6) float64
        Mean position, and sums of products about it.
    certainty, distance, weight, length2 : (n,) float64
        Sums of foreground probability, of distances to means, of voxels behind these, and of squared lengths.
    embedding : (n, c) float64
        Sums of embeddings.
    intensity : (n, channels) float64, or None
        Sums of raw data; None where fragments were not made of any.

    Notes
    -----
    About 200 bytes per segment, and 8 per channel. Spreads are merged as means and sums of squares about them (Chan,
    Golub and LeVeque, 1979): positions in a large volume, squared, would neither fit int64 nor keep their digits.
    """

    voxels: NDArray[np.int64]
    fragments: NDArray[np.int64]
    blocks: NDArray[np.int64]
    coreless: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    faces: NDArray[np.int64]
    centre: NDArray[np.float64]
    squares: NDArray[np.float64]
    certainty: NDArray[np.float64]
    distance: NDArray[np.float64]
    weight: NDArray[np.float64]
    length2: NDArray[np.float64]
    embedding: NDArray[np.float64]
    intensity: NDArray[np.float64] | None

    @classmethod
    def of(cls, count: int, record: Tables, space: Workspace) -> Sums:
        """Begin with nothing, for a number of segments whose blocks have records like the one given."""
        whole, real, n = np.int64, np.float64, count + 1
        widths: dict[str, tuple[Any, tuple[int, ...]]] = dict.fromkeys(
            ("voxels", "fragments", "blocks", "coreless"), (whole, ())
        )
        widths |= dict.fromkeys(("start", "stop", "faces"), (whole, (3,)))
        widths |= {"centre": (real, (3,)), "squares": (real, (6,))}
        widths |= dict.fromkeys(("certainty", "distance", "weight", "length2"), (real, ()))
        widths |= {"embedding": (real, record["sums"].shape[1:])}
        arrays: dict[str, Any] = {name: space.zeros(name, kind, (n, *width)) for name, (kind, width) in widths.items()}
        arrays["intensity"] = None
        if "intensities" in record:
            arrays["intensity"] = space.zeros("intensity", real, (n, *record["intensities"].shape[1:]))
        for part in space.parts(n):
            arrays["start"][part] = np.iinfo(whole).max
        return cls(**arrays)

    def rows(self, part: slice) -> Sums:
        """Give a part of the segments, in memory."""
        arrays: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, array in arrays.items():
            arrays[name] = None if array is None else np.array(array[part])
        return Sums(**arrays)

    def add(self, record: Tables, lookup: NDArray[Any], start: tuple[int, int, int]) -> None:
        """Add the pieces of a block, whose inner box starts at `start`; `lookup` gives their segments."""
        segments, place = np.unique(lookup, return_inverse=True)
        np.add.at(self.voxels, lookup, record["voxels"])
        np.add.at(self.fragments, lookup[: len(record["weights"])], 1)
        self.blocks[segments] += 1
        np.minimum.at(self.start, lookup, record["start"])
        np.maximum.at(self.stop, lookup, record["stop"])
        np.add.at(self.certainty, lookup, record["certainty"])
        self._add_raw(record, lookup)
        self._add_embedding(record, lookup)
        self._add_faces(record, lookup)
        local = record["positions"] - record["voxels"][:, None] * np.array(start)
        voxels, moved, products = (
            _summed(place, values, len(segments)) for values in (record["voxels"][:, None], local, record["moments"])
        )
        self._merge(segments, voxels[:, 0], moved, products, np.array(start))

    def _merge(
        self,
        segments: NDArray[Any],
        voxels: NDArray[np.float64],
        moved: NDArray[np.float64],
        products: NDArray[np.float64],
        start: NDArray[np.int64],
    ) -> None:
        centre = moved / voxels[:, None]
        before = self.voxels[segments] - voxels
        apart = centre + start - self.centre[segments]
        for column, (a, b) in enumerate(PRODUCTS):
            about = products[:, column] - moved[:, a] * moved[:, b] / voxels
            between = apart[:, a] * apart[:, b] * before * voxels / (before + voxels)
            self.squares[segments, column] += about + between
        self.centre[segments] += apart * (voxels / (before + voxels))[:, None]

    def _add_raw(self, record: Tables, lookup: NDArray[Any]) -> None:
        if self.intensity is None:
            return
        np.add.at(self.intensity, lookup, record["intensities"])
        np.add.at(self.coreless, lookup[: len(record["weights"])], record["coreless"])

    def _add_embedding(self, record: Tables, lookup: NDArray[Any]) -> None:
        weights = np.maximum(record["weights"], 1)
        lookup = lookup[: len(weights)]  # the embeddings of gaps are not known
        np.add.at(self.weight, lookup, record["weights"])
        np.add.at(self.embedding, lookup, record["sums"])
        np.add.at(self.distance, lookup, record["distances"])
        np.add.at(self.length2, lookup, (record["sums"] ** 2).sum(axis=1) / weights)

    def means(self, segments: NDArray[np.int64] | slice) -> NDArray[np.float64]:
        """Give the mean embeddings of some segments."""
        return self.embedding[segments] / np.maximum(self.weight[segments], 1)[:, None]

    def _add_faces(self, record: Tables, lookup: NDArray[Any]) -> None:
        np.add.at(self.faces, lookup, record["open_faces"])
        first, second, axis, counts = record["axis_contacts"].T
        joined = lookup[first - 1] == lookup[second - 1]
        np.subtract.at(self.faces, (lookup[first - 1][joined], axis[joined]), 2 * counts[joined])

    def add_seam(self, axis: int, planes: tuple[NDArray[Any], NDArray[Any]]) -> None:
        """Add the faces at which segments end between two blocks, whose outermost planes are given."""
        ends = planes[0] != planes[1]
        for plane in planes:
            np.add.at(self.faces[:, axis], plane[ends], 1)


def _summed(place: NDArray[Any], values: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    # Sums within a block are whole numbers that float64 holds exactly.
    return np.stack([np.bincount(place, column, count) for column in values.T], axis=1)
