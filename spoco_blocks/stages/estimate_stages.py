"""From what samples took and gave to what each stage will, over all blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, prod

from spoco_blocks.clustering import Modes
from spoco_blocks.engine.runner import process_mb
from spoco_blocks.grid import Block, BlockGrid, Triple, triple
from spoco_blocks.settings.clustering_jobs import EstimateJob
from spoco_blocks.settings.segmentation import MeshSettings, SkeletonSettings
from spoco_blocks.stages.calibrate import SeekModes
from spoco_blocks.stages.cluster import ClusterBlock
from spoco_blocks.stages.embed import EmbedBlock
from spoco_blocks.stages.exact.cluster import ClusterExactly
from spoco_blocks.stages.exact.costs import CLUSTERING
from spoco_blocks.stages.mesh import MESH_BYTES
from spoco_blocks.stages.output import PredictedOutput, StoredOutput
from spoco_blocks.stages.plan import Plan, image_layout
from spoco_blocks.stages.plan.samples import Costs
from spoco_blocks.stages.pyramid import coarsen_bytes
from spoco_blocks.stages.raw_pyramid import copied_voxel_bytes, copy_bytes
from spoco_blocks.stages.recut import COMPARED_BYTES, across, chosen_blocks
from spoco_blocks.stages.relabel import GAP_BYTES, RELABEL_BYTES
from spoco_blocks.stages.skeleton import BOX_BYTES, LABEL_BYTES, OBJECT_BYTES


@dataclass(frozen=True)
class StageEstimate:
    """What one stage will cost.

    Attributes
    ----------
    stage : str
        Its name.
    blocks, jobs : int
        Blocks, and jobs that share them.
    work_s : float
        Seconds of all blocks together, one after the other, on a processor (or GPU) like this one.
    gpu : bool
        Whether the work is the network's.
    memory_mb : int
        What a process needs for one block, in MiB.
    disk_bytes, files : int
        What the stage leaves.
    bound : bool
        Whether that is only known to be at most so much, because it depends on objects that are not found yet.
    """

    stage: str
    blocks: int
    jobs: int
    work_s: float
    gpu: bool
    memory_mb: int
    disk_bytes: int
    files: int
    bound: bool = False


@dataclass(frozen=True)
class Whole:
    """From costs for a voxel to those of all blocks."""

    plan: Plan
    costs: Costs
    task: ClusterBlock
    job: EstimateJob

    @property
    def share(self) -> float:
        """Part of the blocks in which there is something to segment."""
        return 1 - self.costs.empty / max(1, self.costs.drawn)

    @property
    def voxels(self) -> float:
        """Voxels of the inner boxes of those blocks."""
        return self.share * prod(self.plan.shape)

    @property
    def block(self) -> Block:
        """A block that the volume's edge does not cut, where there is one; of two, the first is whole."""
        grid = self.plan.cluster_grid
        return grid.block(grid.index(triple((n - 1) // 2 for n in grid.counts)))

    def prediction_s(self, grid: BlockGrid) -> float:
        """Seconds that the network takes for all outer boxes of a grid."""
        halo = triple(a + b for a, b in zip(grid.halo, self.plan.network_halo, strict=True))
        return self.share * outer_voxels(BlockGrid(grid.shape, grid.block_shape, halo)) * self.costs.predict_s

    def stage(
        self, name: str, seconds: float, memory: int, disk: float = 0, stores: int = 0, *, gpu: bool = False
    ) -> StageEstimate:
        """Describe a stage that works through the plan's blocks."""
        blocks = len(self.plan.cluster_grid)
        files = stores * max(1, round(self.share * blocks))
        return StageEstimate(
            name, blocks, min(self.job.shards, blocks), seconds, gpu, in_mb(memory, network=gpu), round(disk), files
        )

    def embed(self, stored: StoredOutput | PredictedOutput) -> StageEstimate:
        """The network, and compressing what it says."""
        assert isinstance(stored, StoredOutput)
        memory = EmbedBlock(self.plan.predicted, stored).memory_bytes(self.block)
        seconds = self.prediction_s(BlockGrid(self.plan.shape, self.plan.block_shape))
        seconds += self.voxels * self.costs.store_s
        disk = self.voxels * self.costs.output_bytes
        stores = 1 + stored.networks + (1 if self.plan.offsets else 0)
        return self.stage("embed", seconds, memory, disk, stores, gpu=True)

    def calibrate(self) -> StageEstimate:
        """Modes of all regions, predicted anew where nothing is stored."""
        grid = self.plan.seeking_grid
        seconds = self.voxels * self.costs.seek_s + (self.prediction_s(grid) if self.plan.stream else 0)
        assert isinstance(self.task.method, Modes)
        seeking = SeekModes(self.task.source, self.task.method, 0.0, self.plan.region_grid)
        memory = seeking.memory_bytes(grid.block(0))
        needed = in_mb(memory, network=self.plan.stream)
        return StageEstimate("calibrate", len(grid), 1, seconds, self.plan.stream, needed, 0, 0)

    def cluster(self) -> StageEstimate:
        """Clustering of the outer boxes."""
        grid = self.plan.cluster_grid
        seconds = self.share * outer_voxels(grid) * self.costs.cluster_s + self.voxels * self.costs.gaps_s
        seconds += self.prediction_s(grid) if self.plan.stream else 0
        disk = self.voxels * self.costs.labels_bytes
        return self.stage("cluster", seconds, self.task.memory_bytes(self.block), disk, 1, gpu=self.plan.stream)

    def relabel(self) -> StageEstimate:
        """Fragments replaced by segments, and gaps by what fills them."""
        memory = (RELABEL_BYTES + GAP_BYTES * self.job.gaps) * self.block.inner.size
        seconds, disk = self.voxels * (self.costs.relabel_s + self.costs.gaps_s), self.voxels * self.costs.labels_bytes
        return replace(self.stage("relabel", seconds, memory, disk), files=max(1, round(self.share * self.files(0))))

    def pyramid(self) -> StageEstimate:
        """Every coarser level, each written in blocks of the finest one's shape."""
        levels = range(1, self.plan.levels)
        disk = self.coarser * self.voxels * self.costs.labels_bytes
        seconds = self.voxels * (self.costs.coarsen_s + self.coarser * self.costs.relabel_s)
        return StageEstimate(
            "pyramid", self.blocks(levels), 1, seconds, False, in_mb(self.coarsening(4, ids=True)), round(disk),
            max(1, round(self.share * sum(map(self.files, levels)))),
        )  # fmt: skip

    def recut(self, task: ClusterBlock | ClusterExactly, grid: BlockGrid) -> StageEstimate | None:
        """A few blocks of a grid, clustered again across their faces; None where there are none to look at."""
        planar, passes = self.plan.planar, CLUSTERING if isinstance(task, ClusterExactly) else 1
        moved = [across(grid, grid.block(index), planar=planar) for index in chosen_blocks(self.plan, grid)]
        if not moved:
            return None
        seconds = passes * self.share * sum(block.outer.size for block in moved) * self.costs.cluster_s
        memory = max(task.memory_bytes(block) + COMPARED_BYTES * block.inner.size for block in moved)
        return StageEstimate("recut", len(moved), 1, seconds, False, in_mb(memory), 0, 0)

    def raw_pyramid(self) -> StageEstimate:
        """All levels of the raw data, also where there is nothing to segment."""
        levels, voxels, each = range(self.plan.levels), prod(self.plan.shape), copied_voxel_bytes(self.plan)
        memory = max(copy_bytes(self.block.inner.size, each), self.coarsening(each, ids=False))
        disk = (1 + self.coarser) * voxels * self.costs.raw_bytes
        seconds = voxels * (1 + self.coarser) * (self.costs.copy_s + self.costs.mean_s)
        return StageEstimate(
            "raw_pyramid", self.blocks(levels), 1, seconds, False, in_mb(memory), round(disk),
            sum(map(self.files, levels)),
        )  # fmt: skip

    def mesh(self, settings: MeshSettings) -> StageEstimate:
        """Surfaces; where no level is chosen, those of the finest one."""
        grid, pieces = self.plan.level_grid(settings.level or 0), self.voxels * self.costs.mesh_pieces
        memory, disk = grid.block(0).inner.size * MESH_BYTES, self.voxels * self.costs.mesh_bytes
        # A fragment and a manifest.
        return StageEstimate(
            "mesh", len(grid), 1, self.voxels * self.costs.mesh_s, False, in_mb(memory), round(disk), round(2 * pieces),
            bound=True,
        )  # fmt: skip

    def skeleton(self, settings: SkeletonSettings) -> StageEstimate:
        """Centre lines, with the largest object that they are sought in; where no level is chosen, of the finest."""
        grid, pieces = self.plan.level_grid(settings.level or 0), self.voxels * self.costs.skeleton_pieces
        box = min(settings.max_box_voxels, prod(grid.shape))
        memory = grid.block(0).inner.size * 4 * LABEL_BYTES + box * (BOX_BYTES + OBJECT_BYTES)
        return StageEstimate(
            "skeleton", len(grid), 1, self.voxels * self.costs.skeleton_s, False, in_mb(memory),
            round(self.voxels * self.costs.skeleton_bytes), round(pieces), bound=True,
        )  # fmt: skip

    @property
    def coarser(self) -> float:
        """Voxels of all coarser levels together, for one of the finest."""
        return sum(prod(self.plan.level_grid(level).shape) for level in range(1, self.plan.levels)) / prod(
            self.plan.shape
        )

    def coarsening(self, each: int, *, ids: bool) -> int:
        """Bytes that a block of a coarser level takes, of voxels of so many bytes."""
        voxels = self.block.inner.size
        return max((coarsen_bytes(voxels, each, factor, ids=ids) for factor in self.plan.factors), default=0)

    def blocks(self, levels: range) -> int:
        """Blocks of some levels together."""
        return sum(len(self.plan.level_grid(level)) for level in levels)

    def files(self, level: int) -> int:
        """Files of a level of an image: one for each block, or for each chunk where the version knows no shards."""
        image = image_layout(self.plan, self.job.ome_zarr_version)
        written: Triple = image["shard_shape"] or image["chunk_shape"]
        return prod(ceil(s / w) for s, w in zip(self.plan.level_grid(level).shape, written, strict=True))


def outer_voxels(grid: BlockGrid) -> int:
    """Count the voxels of all outer boxes together, without going through the blocks."""
    return prod(
        sum(min(a + edge + halo, extent) - max(0, a - halo) for a in range(0, extent, edge))
        for extent, edge, halo in zip(grid.shape, grid.block_shape, grid.halo, strict=True)
    )


def in_mb(size: int, *, network: bool = False) -> int:
    """Give the memory of a process that needs so many bytes, in MiB."""
    return process_mb(applies_network=network) + size // 2**20 + 1
