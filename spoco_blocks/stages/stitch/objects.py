"""The table of objects: what blocks know of their fragments, summed over each segment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spoco_blocks.engine.ledger import Records
from spoco_blocks.grid import BlockGrid
from spoco_blocks.kernels.confidence import confidences
from spoco_blocks.kernels.shape import PRODUCTS
from spoco_blocks.stages.stitch.mapped import Workspace, largest
from spoco_blocks.stages.stitch.nearest import gaps_to_nearest
from spoco_blocks.stages.stitch.seams import SeamCounts
from spoco_blocks.stages.stitch.sums import Sums
from spoco_blocks.stages.stitch.tables import AXES, following, reader

# A solid ellipsoid with semi-axis a has the variance a² / 5 along it.
ELLIPSOID = 5.0
# How far a voxel's own extent adds to the variance, in voxels².
VOXEL = 1 / 12
# Rows of the table that are made and written together, about 1 kB each.
ROWS = 2**17


@dataclass(frozen=True)
class Geometry:
    """How a volume is cut, the extent of a voxel along z, y, x in nm, and whether z counts images."""

    grid: BlockGrid
    voxel_size_nm: tuple[float, float, float]
    planar: bool


def write_objects(
    path: Path,
    records: Records,
    lookup: NDArray[Any],
    offsets: NDArray[np.int64],
    geometry: Geometry,
    seams: SeamCounts,
    folder: Path,
) -> int:
    """Sum the pieces of each segment into one row: its fragments, and gaps that were filled.

    Parameters
    ----------
    path : Path
        The table.
    records : Records
        Of stage `cluster`.
    lookup : (m,) unsigned int
        The segment of every piece; mapped or in memory.
    offsets : (blocks + 1,) int64
        Local piece i of block b is piece ``offsets[b] + i``.
    geometry : Geometry
        The blocks.
    seams : SeamCounts
        What segments face between them.
    folder : Path
        Where sums lie, in files that are mapped.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    ResourceError
        When the disk has too little room.

    Notes
    -----
    Reads every record three times, one row of blocks at a time. Held are what a row of blocks touches, `ROWS` rows of
    the table and, where segments touch no other, the means of `mapped.PART` segments. In files: about 220 bytes per
    segment, and 8 per channel.
    """
    space = Workspace(folder, lookup, seams.own, seams.facing)
    read = reader(records, geometry.grid)
    sums = Sums.of(largest(lookup), read(0), space)
    _add_blocks(sums, records, lookup, offsets, geometry, space)
    touching = (
        apart(_table_of(lookup, offsets, block)[read(block)["pairs"]]) for block in _by_rows(geometry.grid, space)
    )
    gaps = gaps_to_nearest(sums, touching, space)
    count = len(sums.voxels) - 1
    part = path.with_name(path.name + ".part")
    with ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for start in range(1, max(count, 1) + 1, ROWS):
            chosen = slice(start, min(start + ROWS, count + 1))
            facing = replace(seams, own=np.array(seams.own[chosen]), facing=np.array(seams.facing[chosen]))
            rows = _rows(start, sums.rows(chosen), np.array(gaps[chosen]), facing, geometry)
            space.let_go()
            writer = writer or stack.enter_context(pq.ParquetWriter(part, rows.schema))
            writer.write_table(rows)
    # In one step: a run that is killed leaves the table that was there.
    part.replace(path)
    return count


def _add_blocks(
    sums: Sums,
    records: Records,
    lookup: NDArray[Any],
    offsets: NDArray[np.int64],
    geometry: Geometry,
    space: Workspace,
) -> None:
    grid, read = geometry.grid, reader(records, geometry.grid)
    for block in _by_rows(grid, space):
        record, mine = read(block), _table_of(lookup, offsets, block)
        sums.add(record, mine[1:], grid.block(block).inner.start)
        for axis, other in following(grid, block, planar=geometry.planar):
            near, far = record[f"{AXES[axis]}1"], read(other)[f"{AXES[axis]}0"]
            sums.add_seam(axis, (mine[near], _table_of(lookup, offsets, other)[far]))


def _by_rows(grid: BlockGrid, space: Workspace) -> Iterator[int]:
    """Give the blocks; what they touch of mapped files is let go of after each row."""
    for block in range(len(grid)):
        yield block
        if (block + 1) % grid.counts[2] == 0:
            space.let_go()


def _table_of(lookup: NDArray[Any], offsets: NDArray[np.int64], block: int) -> NDArray[Any]:
    """Give the segments of the pieces of a block, by their local numbers."""
    return np.concatenate([lookup[:1], lookup[offsets[block] + 1 : offsets[block + 1] + 1]])


def apart(pairs: NDArray[Any]) -> NDArray[Any]:
    """Give the pairs of two different segments."""
    found: NDArray[Any] = pairs[(pairs[:, 0] != pairs[:, 1]) & (pairs > 0).all(axis=1)]
    return found


def _rows(first: int, sums: Sums, gaps: NDArray[np.float64], seams: SeamCounts, geometry: Geometry) -> pa.Table:
    """Make the rows of segments from the first on; sums, gaps and seams are those of these segments."""
    voxels, start, stop = sums.voxels, sums.start, sums.stop
    size_nm = np.array(geometry.voxel_size_nm)
    bounded = slice(1, 3) if geometry.planar else slice(0, 3)
    touches = (start[:, bounded] == 0).any(1) | (stop[:, bounded] == np.array(geometry.grid.shape)[bounded]).any(1)
    lengths, direction = principal_axes(sums.squares, voxels, size_nm)
    columns: dict[str, Any] = {"id": np.arange(first, first + len(voxels), dtype=np.uint64), "voxels": voxels}
    columns["volume_um3"] = voxels * (size_nm / 1000).prod()
    columns |= {f"{AXES[a]}0": start[:, a] for a in range(3)} | {f"{AXES[a]}1": stop[:, a] for a in range(3)}
    columns |= {f"centroid_{AXES[a]}_nm": (sums.centre[:, a] + 0.5) * size_nm[a] for a in range(3)}
    columns |= {f"axis_{a + 1}_nm": lengths[:, a] for a in range(3)}
    columns |= {f"direction_{AXES[a]}": direction[:, a] for a in range(3)}
    columns["surface_um2"] = surface(sums.faces, size_nm, planar=geometry.planar)
    columns["certainty"] = sums.certainty / voxels
    columns["spread"] = between = spread(sums)
    within = sums.distance / np.maximum(sums.weight, 1)
    columns["confidence"] = confidences(np.hypot(within, between), gaps)
    columns |= mean_intensities(sums)
    agreement = seams.own / np.maximum(seams.facing, 1)
    columns["seam_agreement"] = pa.array(agreement, mask=seams.facing == 0)
    columns |= {"fragments": sums.fragments, "coreless": sums.coreless, "blocks": sums.blocks}
    return pa.table({**columns, "touches_border": touches})


def mean_intensities(sums: Sums) -> dict[str, NDArray[np.float64]]:
    """Give the mean of the raw data over each object: one column, or one for each channel."""
    if sums.intensity is None:
        return {}
    means = (sums.intensity / sums.voxels[:, None]).T
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
