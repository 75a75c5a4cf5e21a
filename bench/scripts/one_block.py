"""Run one block of a stage in this process: prints its peak of memory and what was projected, in MiB."""

import json
import sys
from pathlib import Path

from spoco_blocks.clustering import Modes, Mutex
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.engine.runner import process_mb
from spoco_blocks.engine.tasks import BlockTask, Work
from spoco_blocks.grid import Block, BlockGrid, Box, triple
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.calibrate import SeekModes
from spoco_blocks.stages.cluster import cluster_task
from spoco_blocks.stages.embed import EmbedBlock
from spoco_blocks.stages.mesh import MeshBlock
from spoco_blocks.stages.output import StoredOutput
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.pyramid import CoarsenBlock
from spoco_blocks.stages.raw_pyramid import CopyBlock, create_copy
from spoco_blocks.stages.relabel import RelabelBlock
from spoco_blocks.stages.skeleton import SkeletonBlock, open_objects


def task_of(root: Path, name: str, stage: str) -> tuple[BlockTask, Block]:
    """Make the task of a stage as the stage does, and give it with a block from the middle of the volume."""
    results = Layout(root).segmentation(name)
    plan = Plan.read(Manifest.read(results.manifest("plan")))
    grid = plan.cluster_grid
    block = grid.block(grid.index(triple(n // 2 for n in grid.counts)))
    method = Modes() if name.startswith("modes") else Mutex()
    threshold = 0.0 if name.endswith("dense") else None
    if stage == "embed":
        stored = plan.output(results, affinities=True)
        assert isinstance(stored, StoredOutput)
        return EmbedBlock(plan.predicted, stored), plan.embed_grid.block(block.index)
    if stage == "calibrate":
        task = SeekModes(plan.embedded(results, threshold), Modes(), 0.1, plan.region_grid)
        return task, plan.seeking_grid.block(0)
    if stage == "cluster":
        return cluster_task(plan, results, "", method, threshold, gaps=False), block
    fragments, segments = (Source(uri=str(path)) for path in (results.fragments, results.segments))
    if stage == "relabel":
        return RelabelBlock(fragments, segments, results.lookup, "", results.offsets), block
    if stage == "raw_pyramid":
        create_copy(plan, results, "0.5")
        return CopyBlock(plan.predicted.raw, Source(uri=results.raw_pyramid), plan.origin), block
    if stage == "mesh":
        results.meshes.mkdir(exist_ok=True)
        return MeshBlock(segments, (1, 1, 1), plan.voxel_size_nm, results.objects, "", 0, results.meshes), block
    if stage == "skeleton":
        results.skeletons.mkdir(exist_ok=True)
        objects = open_objects(results.objects, (1, 1, 1), 0, 2**25, "")
        return SkeletonBlock(
            segments, (1, 1, 1), plan.voxel_size_nm, results.objects, "", 0, 2**25, 1.5, 4 * max(plan.voxel_size_nm),
            int(objects.memory_bytes.max()), results.skeletons,
        ), block  # fmt: skip
    coarse = segments.model_copy(update={"level": 1})
    inner = Box(triple(a // 2 for a in block.inner.start), triple(b // 2 for b in block.inner.stop))
    return CoarsenBlock(segments, coarse, plan.factors[0], ids=True), Block(block.index, inner, inner)


def status_mb(name: str) -> float:
    """Give a value of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


if __name__ == "__main__":
    idle = status_mb("VmRSS")
    work, chosen = task_of(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    work(chosen)
    network = Work(work, BlockGrid(chosen.inner.shape, chosen.inner.shape)).part != "cpu"
    projected = process_mb(applies_network=network) + work.memory_bytes(chosen) / 2**20
    print(json.dumps({"idle": idle, "peak": status_mb("VmHWM"), "projected": projected}))
