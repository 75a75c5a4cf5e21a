"""The table of objects: what blocks know of their fragments, summed over each segment, one block at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spoco_blocks.engine.ledger import Records, Tables
from spoco_blocks.kernels.confidence import confidences, nearest_gaps
from spoco_blocks.kernels.shape import PRODUCTS
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.stitch.seams import SeamCounts
from spoco_blocks.stages.stitch.tables import AXES, following, reader

# A solid ellipsoid with semi-axis a has the variance a² / 5 along it.
ELLIPSOID = 5.0
# How far a voxel's own extent adds to the variance, in voxels².
VOXEL = 1 / 12


class Sums:
    """What adds up over the pieces of a segment; entry 0 stands for the background.

    Parameters
    ----------
    count : int
        Number of segments.

    Notes
    -----
    About 200 bytes per segment, and 8 per channel. Spreads are merged as means and sums of squares about them (Chan,
    Golub and LeVeque, 1979): positions in a large volume, squared, would neither fit int64 nor keep their digits.
    """

    def __init__(self, count: int, channels: int) -> None:
        self.voxels, self.fragments, self.blocks = (np.zeros(count + 1, np.int64) for _ in range(3))
        self.start = np.full((count + 1, 3), np.iinfo(np.int64).max)
        self.stop, self.faces = np.zeros((count + 1, 3), np.int64), np.zeros((count + 1, 3), np.int64)
        self.centre, self.squares = np.zeros((count + 1, 3)), np.zeros((count + 1, 6))
        self.certainty, self.coreless = np.zeros(count + 1), np.zeros(count + 1, np.int64)
        self.intensity: NDArray[np.float64] | None = None
        self.distance = np.zeros(count + 1)
        self.weight, self.length2 = np.zeros(count + 1), np.zeros(count + 1)
        self.embedding = np.zeros((count + 1, channels))

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
        if "intensities" not in record:  # fragments that were not made of raw data
            return
        if self.intensity is None:
            self.intensity = np.zeros((len(self.voxels), record["intensities"].shape[1]))
        np.add.at(self.intensity, lookup, record["intensities"])
        np.add.at(self.coreless, lookup[: len(record["weights"])], record["coreless"])

    def _add_embedding(self, record: Tables, lookup: NDArray[Any]) -> None:
        weights = np.maximum(record["weights"], 1)
        lookup = lookup[: len(weights)]  # the embeddings of gaps are not known
        np.add.at(self.weight, lookup, record["weights"])
        np.add.at(self.embedding, lookup, record["sums"])
        np.add.at(self.distance, lookup, record["distances"])
        np.add.at(self.length2, lookup, (record["sums"] ** 2).sum(axis=1) / weights)

    @property
    def means(self) -> NDArray[np.float64]:
        """Mean embedding of each segment."""
        return self.embedding / np.maximum(self.weight, 1)[:, None]

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


def object_table(
    records: Records, lookup: NDArray[Any], offsets: NDArray[np.int64], plan: Plan, seams: SeamCounts
) -> pa.Table:
    """Sum the pieces of each segment into one row: its fragments, and gaps that were filled.

    Notes
    -----
    Reads every record three times, one row of blocks at a time; about 300 bytes per segment.
    """
    grid, read = plan.cluster_grid, reader(records, plan.cluster_grid)
    sums = Sums(int(lookup.max(initial=0)), read(0)["sums"].shape[1])

    def table(block: int) -> NDArray[Any]:
        return np.concatenate([lookup[:1], lookup[offsets[block] + 1 : offsets[block + 1] + 1]])

    for block in range(len(grid)):
        record, mine = read(block), table(block)
        sums.add(record, mine[1:], grid.block(block).inner.start)
        for axis, other in following(grid, block, planar=plan.planar):
            near, far = record[f"{AXES[axis]}1"], read(other)[f"{AXES[axis]}0"]
            sums.add_seam(axis, (mine[near], table(other)[far]))
    touching = (apart(table(block)[read(block)["pairs"]]) for block in range(len(grid)))
    gaps = nearest_gaps(sums.means, touching, sums.voxels > 0)
    return _table(sums, gaps, plan, seams)


def apart(pairs: NDArray[Any]) -> NDArray[Any]:
    """Give the pairs of two different segments."""
    found: NDArray[Any] = pairs[(pairs[:, 0] != pairs[:, 1]) & (pairs > 0).all(axis=1)]
    return found


def _table(sums: Sums, gaps: NDArray[np.float64], plan: Plan, seams: SeamCounts) -> pa.Table:
    voxels, start, stop = sums.voxels[1:], sums.start[1:], sums.stop[1:]
    size_nm = np.array(plan.voxel_size_nm)
    bounded = slice(1, 3) if plan.planar else slice(0, 3)
    touches = (start[:, bounded] == 0).any(1) | (stop[:, bounded] == np.array(plan.shape)[bounded]).any(1)
    lengths, direction = principal_axes(sums.squares[1:], voxels, size_nm)
    columns: dict[str, Any] = {"id": np.arange(1, len(voxels) + 1, dtype=np.uint64), "voxels": voxels}
    columns["volume_um3"] = voxels * (size_nm / 1000).prod()
    columns |= {f"{AXES[a]}0": start[:, a] for a in range(3)} | {f"{AXES[a]}1": stop[:, a] for a in range(3)}
    columns |= {f"centroid_{AXES[a]}_nm": (sums.centre[1:, a] + 0.5) * size_nm[a] for a in range(3)}
    columns |= {f"axis_{a + 1}_nm": lengths[:, a] for a in range(3)}
    columns |= {f"direction_{AXES[a]}": direction[:, a] for a in range(3)}
    columns["surface_um2"] = surface(sums.faces[1:], size_nm, planar=plan.planar)
    columns["certainty"] = sums.certainty[1:] / voxels
    between = spread(sums)
    columns["spread"] = between[1:]
    within = sums.distance / np.maximum(sums.weight, 1)
    columns["confidence"] = confidences(np.hypot(within, between), gaps)[1:]
    columns |= mean_intensities(sums)
    facing = seams.facing[1:]
    agreement = seams.own[1:] / np.maximum(facing, 1)
    columns["seam_agreement"] = pa.array(agreement, mask=facing == 0)
    columns |= {"fragments": sums.fragments[1:], "coreless": sums.coreless[1:], "blocks": sums.blocks[1:]}
    return pa.table({**columns, "touches_border": touches})


def mean_intensities(sums: Sums) -> dict[str, NDArray[np.float64]]:
    """Give the mean of the raw data over each object: one column, or one for each channel."""
    if sums.intensity is None:
        return {}
    means = (sums.intensity[1:] / sums.voxels[1:, None]).T
    if len(means) == 1:
        return {"mean_intensity": means[0]}
    return {f"mean_intensity_{channel}": values for channel, values in enumerate(means)}


def principal_axes(
    squares: NDArray[np.float64], voxels: NDArray[np.int64], size_nm: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the axes of the ellipsoid with an object's second moments.

    Parameters
    ----------
    squares : (n, 6) float64
        Sums of zz, yy, xx, zy, zx, yx about the centroid, in voxels.
    voxels : (n,) int64
        Voxels of each object.
    size_nm : (3,) float64
        Extent of a voxel.

    Returns
    -------
    lengths : (n, 3) float64
        Full lengths in nm, longest first.
    direction : (n, 3) float64
        Unit vector z, y, x along the longest; its first component that is not 0 is positive.
    """
    covariance = np.zeros((len(voxels), 3, 3))
    for column, (a, b) in enumerate(PRODUCTS):
        covariance[:, a, b] = covariance[:, b, a] = squares[:, column] / voxels + VOXEL * (a == b)
    values, vectors = np.linalg.eigh(covariance * np.outer(size_nm, size_nm))
    longest = vectors[:, :, 2]
    leading = np.take_along_axis(longest, (np.abs(longest) > 1e-9).argmax(axis=1)[:, None], axis=1)
    return 2 * np.sqrt(ELLIPSOID * np.maximum(values[:, ::-1], 0)), longest * np.sign(leading)


def surface(faces: NDArray[np.int64], size_nm: NDArray[np.float64], *, planar: bool) -> NDArray[np.float64]:
    """Estimate the surface in µm² from the faces that objects show along each axis, (n, 3).

    Notes
    -----
    Faces along an axis are the surface's projection on it. A surface whose directions are evenly spread shows half of
    itself along each axis in 3D and 2 / π in 2D (Cauchy), so that stairs do not add to it. A flat surface that lies
    along the axes is underestimated by a third. The volume's border counts as no surface.
    """
    areas = np.array([size_nm[1] * size_nm[2], size_nm[0] * size_nm[2], size_nm[0] * size_nm[1]]) / 1e6
    total: NDArray[np.float64] = (faces * areas).sum(axis=1)
    return total * (np.pi / 4 if planar else 2 / 3)


def spread(sums: Sums) -> NDArray[np.float64]:
    """Give how far the means of a segment's fragments lie from its own, root mean square, in embedding units."""
    weight = np.maximum(sums.weight, 1)
    squared = (sums.length2 - (sums.embedding**2).sum(axis=1) / weight) / weight
    rounding = 1e-12 * sums.length2 / weight
    return np.sqrt(np.where(squared > rounding, squared, 0.0))
