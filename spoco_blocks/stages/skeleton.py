"""Stage `skeleton`: the centre lines of every object.

An object is looked at whole, on its own box, by the block that this box starts in: blocks only share the work and never
show. What bounds memory is a bound on the box.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.ledger import Records, Tables
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.engine.runner import Blocks, run
from spoco_blocks.grid import Block, Box, Triple, triple
from spoco_blocks.kernels.skeleton import skeleton
from spoco_blocks.settings.base import LengthsNm
from spoco_blocks.settings.jobs import digest
from spoco_blocks.settings.optional_jobs import SkeletonJob
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.precomputed import (
    check_level,
    check_library,
    choose_level,
    forget_others,
    level_factors,
    position_nm,
)
from spoco_blocks.stages.sources import open_source
from spoco_blocks.volumes import Volume
from spoco_blocks.volumes.precomputed_skeletons import write_skeleton, write_skeleton_info

log = logging.getLogger(__name__)

VERSION = 1
COLUMNS = ["id", "voxels", "volume_um3", "surface_um2", "z0", "y0", "x0", "z1", "y1", "x1"]
# The mask and a copy; distances, paths and queue of the object's own voxels, measured on solid boxes.
BOX_BYTES, OBJECT_BYTES = 2, 50
# Labels as they are and compressed.
LABEL_BYTES = 8


@dataclass(frozen=True)
class Objects:
    """Objects: ids (n,), voxels (n,) and boxes (n, 3), `stop` excluded, in voxels of the level."""

    ids: NDArray[np.int64]
    voxels: NDArray[np.float64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]

    @property
    def box_voxels(self) -> NDArray[np.int64]:
        """Voxels of each box."""
        found: NDArray[np.int64] = (self.stop - self.start).prod(axis=1)
        return found

    @property
    def memory_bytes(self) -> NDArray[np.int64]:
        """What the skeleton of each takes; that a coarse level may hold twice of an object is allowed for."""
        box = self.box_voxels
        return BOX_BYTES * box + OBJECT_BYTES * np.minimum(box, 2 * self.voxels).astype(np.int64)

    def chosen(self, which: NDArray[np.bool_]) -> Objects:
        """Give some of them."""
        return Objects(self.ids[which], self.voxels[which], self.start[which], self.stop[which])

    @classmethod
    def of_table(cls, table: pa.Table, factor: Triple) -> Objects:
        """Take ids and boxes from the table of objects."""
        start, stop = (np.stack([table[f"{a}{end}"].to_numpy() for a in "zyx"], axis=1) for end in (0, 1))
        window = np.array(factor)
        ids, voxels = table["id"].to_numpy().astype(np.int64), table["voxels"].to_numpy() / window.prod()
        return cls(ids, voxels, start // window, -(-stop // window))


@lru_cache(maxsize=4)
def open_objects(path: Path, factor: Triple, min_voxels: int, max_box_voxels: int, identity: str) -> Objects:
    """Read the objects that get skeletons once per process; `identity` makes sure that they are those of this run."""
    table = pq.read_table(path, columns=COLUMNS)
    found = Objects.of_table(table.filter(np.greater_equal(table["voxels"].to_numpy(), min_voxels)), factor)
    return found.chosen(found.box_voxels <= max_box_voxels)


@dataclass(frozen=True)
class SkeletonBlock:
    """Write the skeletons of the objects whose box starts in a block.

    Attributes
    ----------
    segments : Source
        The level that is used.
    factor : tuple of int
        How much coarser it is than level 0.
    voxel_size_nm : tuple of float
        Voxel size at level 0.
    objects : Path
        Table of the objects.
    identity : str
        Digest of this run.
    min_voxels, max_box_voxels : int
        Which objects are left out.
    branch_radii, branch_length_nm : float
        See `skeleton`.
    object_bytes : int
        Memory for the largest object.
    folder : Path
        Where the skeletons go.
    """

    segments: Source
    factor: Triple
    voxel_size_nm: LengthsNm
    objects: Path
    identity: str
    min_voxels: int
    max_box_voxels: int
    branch_radii: float
    branch_length_nm: float
    object_bytes: int
    folder: Path

    def __call__(self, block: Block) -> Tables:
        """Do the objects of one block, and count vertices and objects that are too thin for the level."""
        objects = open_objects(self.objects, self.factor, self.min_voxels, self.max_box_voxels, self.identity)
        inside = ((objects.start >= block.inner.start) & (objects.start < np.array(block.inner.stop))).all(axis=1)
        vertices = vanished = 0
        for number, start, mask in self._masks(objects.chosen(np.asarray(inside)), block.inner):
            found = skeleton(mask, self.spacing_nm, self.branch_radii, self.branch_length_nm)
            positions = position_nm(found.places + np.array(start), self.voxel_size_nm, self.factor)
            write_skeleton(self.folder, number, positions, found.edges, found.radii)
            vertices, vanished = vertices + len(positions), vanished + (len(positions) == 0)
        return {"vertices": np.array(vertices), "vanished": np.array(vanished)}

    @property
    def spacing_nm(self) -> LengthsNm:
        """Extent of a voxel of the level."""
        z, y, x = (size * factor for size, factor in zip(self.voxel_size_nm, self.factor, strict=True))
        return z, y, x

    def _masks(self, objects: Objects, inner: Box) -> Iterator[tuple[int, Triple, NDArray[np.bool_]]]:
        """Give id, start and mask of each object; what lies near the block is read once for all."""
        volume = open_source(self.segments)
        near = Box(inner.start, triple(b + (b - a + 1) // 2 for a, b in zip(inner.start, inner.stop, strict=True)))
        near = near.intersection(Box.of_shape(volume.meta.shape))
        small = np.asarray((objects.stop <= np.array(near.stop)).all(axis=1))
        labels = volume.read(near) if small.any() else None
        for number, start, stop, fits in zip(objects.ids.tolist(), objects.start, objects.stop, small, strict=True):
            box = Box(triple(start), triple(stop))
            if fits and labels is not None:
                yield number, box.start, labels[box.relative_to(near.start).slices] == number
            else:
                yield number, box.start, read_mask(volume, box, number, inner.size)

    def memory_bytes(self, block: Block) -> int:
        """Labels near a block, and the largest object."""
        return block.inner.size * 4 * LABEL_BYTES + self.object_bytes


def read_mask(volume: Volume, box: Box, number: int, voxels: int) -> NDArray[np.bool_]:
    """Read where an object is, a slab of about so many voxels at a time."""
    mask = np.empty(box.shape, np.bool_)
    rows = min(box.shape[1], max(1, voxels // box.shape[2]))
    planes = max(1, voxels // (rows * box.shape[2]))
    for z, y in product(range(0, box.shape[0], planes), range(0, box.shape[1], rows)):
        stop = (min(z + planes, box.shape[0]), min(y + rows, box.shape[1]), box.shape[2])
        part = Box((z, y, 0), stop)
        mask[part.slices] = volume.read(part.shifted(box.start)) == number
    return mask


def run_skeleton(job: SkeletonJob, layout: Layout, execution: Execution) -> Manifest:
    """Find the centre lines of all objects that are large enough, and whose boxes are small enough.

    Raises
    ------
    VolumeError
        When the volume is of 2D images, or its pyramid has no such level.
    """
    results = layout.segmentation(job.segmentation)
    plan = Plan.read(Manifest.read(results.manifest("plan")))
    settings = job.skeletons
    check_level(job.segmentation, "skeletons", settings.level, plan.levels, planar=plan.planar)
    check_library("skeletons")
    inputs = {"pyramid": Manifest.read(results.manifest("pyramid")).digest}
    watch = Stopwatch("skeleton", digest("skeleton", VERSION, job.model_dump(mode="json"), inputs), inputs)
    table = pq.read_table(results.objects, columns=COLUMNS)
    table = table.filter(np.greater_equal(table["voxels"].to_numpy(), settings.min_voxels))
    level = choose_level(plan, table) if settings.level is None else settings.level
    factor, segments = level_factors(plan)[level], Source(uri=results.segments, level=level)
    objects = Objects.of_table(table, factor)
    fits = objects.box_voxels <= settings.max_box_voxels
    grid = plan.level_grid(level)
    blocks = Blocks(grid, results.ledger("skeleton"), watch.identity)
    forget_others(results.skeletons, blocks)
    edge_nm = max(size * window for size, window in zip(plan.voxel_size_nm, factor, strict=True))
    task = SkeletonBlock(
        segments, factor, plan.voxel_size_nm, results.objects, watch.identity, settings.min_voxels,
        settings.max_box_voxels, settings.branch_radii, settings.branch_voxels * edge_nm,
        int(objects.memory_bytes[fits].max(initial=0)), results.skeletons,
    )  # fmt: skip
    summary = run(task, blocks, execution)
    write_skeleton_info(results.skeletons)
    records = list(Records(blocks.folder, blocks.record_identity, len(grid)))
    found = {name: sum(int(record[name]) for record in records) for name in ("vertices", "vanished")}
    found |= {"objects": int(fits.sum()), "level": level, "too_large": objects.ids[~fits].tolist()}
    _say_what_is_missing(job, objects.chosen(~fits))
    result = {"job": job.model_dump(mode="json"), "records": blocks.record_identity, **found}
    return watch.finish(results.manifest("skeleton"), result | summary.__dict__)


def _say_what_is_missing(job: SkeletonJob, left: Objects) -> None:
    if len(left.ids):
        log.warning(
            "%d objects have no skeleton: their boxes hold up to %d voxels, and max_box_voxels in "
            "segmentations.%s.skeletons is %d. Raise it where memory allows, or choose a coarser level. Their ids are "
            "in the manifest.",
            len(left.ids), left.box_voxels.max(), job.segmentation, job.skeletons.max_box_voxels,
        )  # fmt: skip
