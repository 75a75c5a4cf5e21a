"""Stage `mesh`: the surface of every object, one fragment for each block that it meets.

A block owns the cubes between voxel centres whose first corner is one of its voxels, and reads one voxel beyond its far
sides for them: fragments of neighbours fit, and no block needs what another one made. Outside of the volume is
background, so that surfaces are closed there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.ledger import Records, Tables
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.engine.runner import Blocks, run
from spoco_blocks.grid import Block, Box, Triple, triple
from spoco_blocks.kernels.surface import object_boxes, surface
from spoco_blocks.settings.base import LengthsNm
from spoco_blocks.settings.jobs import digest
from spoco_blocks.settings.optional_jobs import MeshJob
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.precomputed import check_level, choose_level, forget_others, level_factors, position_nm
from spoco_blocks.stages.sources import open_source
from spoco_blocks.volumes.precomputed_meshes import fragment_name, write_fragment, write_manifests

VERSION = 1
# Labels as they are, compressed, padded and sorted; a mask and its float32; the mesh of one object, for which most is
# kept: one that fills the block with sheets 7 voxels apart has 0.8 triangles for each voxel.
MESH_BYTES = 100


@lru_cache(maxsize=4)
def open_sizes(objects: Path, identity: str) -> NDArray[np.int64]:
    """Read the voxels of all objects once per process; `identity` makes sure that they are those of this run."""
    sizes: NDArray[np.int64] = pq.read_table(objects, columns=["voxels"])["voxels"].to_numpy()
    return sizes


@dataclass(frozen=True)
class MeshBlock:
    """Write the surfaces that lie in a block.

    Attributes
    ----------
    segments : Source
        The level that is meshed.
    factor : tuple of int
        How much coarser it is than level 0.
    voxel_size_nm : tuple of float
        Voxel size at level 0.
    objects : Path
        Table of the objects.
    identity : str
        Digest of this run.
    min_voxels : int
        Objects under this size, in voxels of level 0, are left out.
    folder : Path
        Where the fragments go.
    """

    segments: Source
    factor: Triple
    voxel_size_nm: LengthsNm
    objects: Path
    identity: str
    min_voxels: int
    folder: Path

    def __call__(self, block: Block) -> Tables:
        """Mesh one block, and give the ids of the objects that have a surface in it."""
        written, triangles = [], 0
        for number, vertices, faces in self._surfaces(block.inner):
            positions = position_nm(vertices / 2, self.voxel_size_nm, self.factor)
            write_fragment(self.folder / fragment_name(block.index, number), positions, faces)
            written.append(number)
            triangles += len(faces)
        return {"ids": np.array(written, np.uint32), "triangles": np.array(triangles)}

    def warm(self) -> None:
        """Mesh one voxel."""
        labels = np.pad(np.ones((1, 1, 1), open_source(self.segments).meta.dtype), 1)
        object_boxes(labels)
        surface(labels == 1)

    def _surfaces(self, inner: Box) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.uint32]]]:
        """Give id, vertices in half voxels of the volume, and triangles of each object."""
        labels, origin = self._read(inner)
        whole = Box.of_shape(triple(labels.shape))
        sizes = open_sizes(self.objects, self.identity)
        ids, starts, stops = object_boxes(labels)
        for number, start, stop in zip(ids.tolist(), starts, stops, strict=True):
            if sizes[number - 1] < self.min_voxels:
                continue
            box = Box(triple(start), triple(stop)).grown((1, 1, 1), whole)
            vertices, triangles = surface(labels[box.slices] == number)
            if len(triangles):
                yield number, vertices + 2 * (np.array(box.start) + origin), triangles

    def _read(self, inner: Box) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Read a block and the next voxels; where the volume ends these are background. Also give where that starts."""
        volume = open_source(self.segments)
        whole = Box.of_shape(volume.meta.shape)
        wanted = Box(inner.start, triple(b + 1 for b in inner.stop))
        before, after = np.equal(inner.start, 0), np.equal(inner.stop, whole.stop)
        labels = volume.read(wanted.intersection(whole))
        return np.pad(labels, np.stack([before, after], axis=1).astype(int)), np.array(inner.start) - before

    def memory_bytes(self, block: Block) -> int:
        """Labels, and the mesh of one object at a time."""
        return block.inner.size * MESH_BYTES


def run_mesh(job: MeshJob, layout: Layout, execution: Execution) -> Manifest:
    """Mesh all objects that are large enough.

    Raises
    ------
    VolumeError
        When the volume is of 2D images, or its pyramid has no such level.
    """
    results = layout.segmentation(job.segmentation)
    plan = Plan.read(Manifest.read(results.manifest("plan")))
    settings = job.meshes
    check_level(job.segmentation, "meshes", settings.level, plan.levels, planar=plan.planar)
    inputs = {"pyramid": Manifest.read(results.manifest("pyramid")).digest}
    watch = Stopwatch("mesh", digest("mesh", VERSION, job.model_dump(mode="json"), inputs), inputs)
    objects = pq.read_table(results.objects, columns=["id", "voxels", "volume_um3", "surface_um2"])
    objects = objects.filter(np.greater_equal(objects["voxels"].to_numpy(), settings.min_voxels))
    level = choose_level(plan, objects) if settings.level is None else settings.level
    segments, grid = Source(uri=results.segments, level=level), plan.level_grid(level)
    blocks = Blocks(grid, results.ledger("mesh"), watch.identity)
    forget_others(results.meshes, blocks)
    factor = level_factors(plan)[level]
    task = MeshBlock(
        segments, factor, plan.voxel_size_nm, results.objects, watch.identity, settings.min_voxels, results.meshes
    )
    summary = run(task, blocks, execution)
    records = Records(blocks.folder, blocks.record_identity, len(grid))
    found = _write_manifests(records, objects["id"].to_numpy(), results.meshes)
    result = {"job": job.model_dump(mode="json"), "records": blocks.record_identity, "level": level, **found}
    return watch.finish(results.manifest("mesh"), result | summary.__dict__)


def _write_manifests(records: Records, wanted: NDArray[Any], folder: Path) -> dict[str, int]:
    """Write the manifest of every object; one that is too thin for the level has no fragments."""
    each = [(record["ids"], int(record["triangles"])) for record in records]
    ids = np.concatenate([np.zeros(0, np.uint32), *(numbers for numbers, _ in each)])
    block = np.repeat(np.arange(len(each)), [len(numbers) for numbers, _ in each])
    order = np.argsort(ids, kind="stable")
    ids, block = ids[order], block[order]
    first, last = np.searchsorted(ids, wanted), np.searchsorted(ids, wanted, side="right")
    ranges = zip(wanted.tolist(), first.tolist(), last.tolist(), strict=True)
    write_manifests(folder, ((n, [fragment_name(b, n) for b in block[a:z].tolist()]) for n, a, z in ranges))
    without = int((first == last).sum())
    triangles = sum(count for _, count in each)
    return {"objects": len(wanted), "fragments": len(ids), "triangles": triangles, "without_surface": without}
