"""Stage `calibrate`: what clustering decides once per volume, so that all blocks agree.

The gradient thresholds come from regions spread over the volume. Modes are sought in every region of a lattice that
does not depend on the block shape: with coordinates in the embedding every object has its own mode, so that no sample
of the whole volume could hold them all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.clustering import Context, Modes
from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout, SegmentationResults
from spoco_blocks.engine.ledger import Records, Tables
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.engine.runner import Blocks, run
from spoco_blocks.errors import LedgerError, VolumeError
from spoco_blocks.grid import Block, BlockGrid, Box
from spoco_blocks.kernels.merged_modes import merge_modes
from spoco_blocks.settings.clustering_jobs import CalibrateJob
from spoco_blocks.settings.jobs import digest
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.exact.find import check_exact, find_pieces
from spoco_blocks.stages.exact.seeds import FindSeeds, create_seed_store, exact_grid
from spoco_blocks.stages.output import PredictedOutput
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.rehearsal import rehearsed_embeddings

VERSION = 5
SOUGHT = ("modes", "counts", "region")
REGIONS_FOR_THRESHOLD = 64


@dataclass(frozen=True)
class SampleGradients:
    """Gradient magnitudes of one region."""

    source: Embedded
    method: Modes

    def __call__(self, block: Block) -> Tables:
        """Read the region and sample it."""
        return {"gradients": self.method.gradient_sample(*self.source.read(block.outer)).astype(np.float32)}

    def warm(self) -> None:
        """Sample something small."""
        self.method.gradient_sample(*rehearsed_embeddings(self.source.output.channels))

    @property
    def uses_gpu(self) -> bool:
        """Whether the network is applied here."""
        return isinstance(self.source.output, PredictedOutput)

    def memory_bytes(self, block: Block) -> int:
        """The output, embeddings in float32, and work arrays."""
        output = self.source.output
        return output.memory_bytes(block.outer) + block.outer.size * (4 * output.channels + 40)


@dataclass(frozen=True)
class SeekModes:
    """Modes of each region of a group, in the frame of the volume."""

    source: Embedded
    method: Modes
    threshold: float
    regions: BlockGrid

    def __call__(self, block: Block) -> Tables:
        """Read the group at once and seek in one region after the other: `region` says whose each mode is."""
        output = self.source.output.read(block.outer)
        modes: list[NDArray[np.float64]] = [np.empty((0, self.source.output.channels))]
        counts: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        region: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        for index in self.regions.touching(block.inner):
            outer = self.regions.block(index).outer
            part = tuple(
                slice(a - s, b - s) for a, b, s in zip(outer.start, outer.stop, block.outer.start, strict=True)
            )
            # In the region's own frame, so that which regions are read together does not show.
            embeddings, foreground = self.source.understand(output.part(part))
            found, samples = self.method.seek(embeddings, foreground, self.threshold, seed=index)
            modes.append(self.source.to_volume(found, outer.start))
            counts.append(samples)
            region.append(np.full(len(found), index))
        return {"modes": np.concatenate(modes), "counts": np.concatenate(counts), "region": np.concatenate(region)}

    def warm(self) -> None:
        """Seek in something small."""
        self.method.seek(*rehearsed_embeddings(self.source.output.channels), self.threshold, seed=0)

    @property
    def uses_gpu(self) -> bool:
        """Whether the network is applied here."""
        return isinstance(self.source.output, PredictedOutput)

    def memory_bytes(self, block: Block) -> int:
        """The output, embeddings in float32, and work arrays."""
        output = self.source.output
        return output.memory_bytes(block.outer) + block.outer.size * (4 * output.channels + 40)


def run_calibrate(job: CalibrateJob, layout: Layout, execution: Execution) -> Manifest:
    """Decide gradient threshold and modes of a volume; nothing for methods that need neither."""
    results = layout.segmentation(job.segmentation)
    planned = Manifest.read(results.manifest("plan"))
    plan, inputs = Plan.read(planned), {"plan": planned.digest}
    if not plan.stream:
        embed = Manifest.read(results.manifest("embed", 0))
        Records(results.ledger("embed"), embed.result["records"], len(plan.embed_grid))  # refuses missing blocks
        inputs = {"embed": embed.digest}
    watch = Stopwatch("calibrate", digest("calibrate", VERSION, job.model_dump(mode="json"), inputs), inputs)
    method = plan.method(job.clustering)
    check_exact(method, exact=job.exact)
    if not isinstance(method, Modes):
        return watch.finish(results.manifest("calibrate"), {"job": job.model_dump(mode="json")})
    source = plan.embedded(results, job.foreground_threshold)
    regions = plan.region_grid
    threshold, coreless = find_thresholds(SampleGradients(source, method), regions, results, watch.identity, execution)
    grid = plan.seeking_grid
    blocks = Blocks(grid, results.ledger("calibrate") / "modes", digest(watch.identity, threshold))
    summary = run(SeekModes(source, method, threshold, regions), blocks, execution)
    records = list(Records(blocks.folder, blocks.record_identity, len(grid)))
    found, counts, region = (np.concatenate([record[name] for record in records]) for name in SOUGHT)
    # Whatever the groups were: in the order of the regions.
    order = np.argsort(region, kind="stable")
    found, counts, region = found[order], counts[order], region[order]
    modes, representative = merge_modes(found, counts, method.merging)
    np.savez(results.modes, modes=modes, region=region, representative=representative)
    decided = {
        "gradient_threshold": threshold,
        "coreless_threshold": coreless,
        "bandwidth": method.radius,
        "merge_radius": method.merging,
        "modes": len(modes),
    }
    if job.exact:
        ledger, exactly = results.ledger("calibrate"), digest(blocks.record_identity, "exact")
        create_seed_store(plan, results, ledger / "seeds")
        seeds = FindSeeds(
            source, method, (threshold, coreless), results.modes, Source(uri=results.seeds), plan.shape, exactly
        )
        decided |= find_pieces(
            seeds, exact_grid(plan, method), results.pieces, ledger, exactly, execution, planar=plan.planar
        )
    result = {"job": job.model_dump(mode="json"), **decided, **summary.__dict__}
    return watch.finish(results.manifest("calibrate"), result)


def find_thresholds(
    task: SampleGradients, grid: BlockGrid, results: SegmentationResults, identity: str, execution: Execution
) -> tuple[float, float]:
    """Decide the gradient thresholds, of cores and of objects without, from regions drawn all over the volume.

    Raises
    ------
    VolumeError
        When none of them holds foreground.
    """
    # Drawn, not counted off: a fixed step through the raster keeps to one edge of the volume.
    drawn = np.random.default_rng(0).permutation(len(grid))[:REGIONS_FOR_THRESHOLD]
    chosen = tuple(sorted(drawn.tolist()))
    blocks = Blocks(grid, results.ledger("calibrate") / "gradients", digest(identity, "gradients"), only=chosen)
    run(task, blocks, execution)
    records = Records(blocks.folder, blocks.record_identity, 0)
    gradients = np.concatenate([records.of(index)["gradients"] for index in chosen])
    if not len(gradients):
        raise VolumeError(
            f"no foreground in {len(chosen)} regions of {grid.block_shape} voxels drawn all over the volume "
            f"(probability above {task.source.threshold}); look at {results.root} and at the learning "
            "curves, lower foreground_threshold, or train on more objects."
        )
    threshold = task.method.gradient_threshold(gradients)
    return threshold, task.method.coreless_threshold(gradients, threshold)


@dataclass(frozen=True)
class Calibration:
    """The decisions, and the part of them that matters to a box.

    Attributes
    ----------
    grid : BlockGrid
        The lattice of regions.
    threshold, coreless : float
        Gradient threshold of cores, and of objects without a core.
    modes : (m, c) float64
        Modes in the frame of the volume.
    of_region : dict
        Modes that stand for those found in each region.
    """

    grid: BlockGrid
    threshold: float
    coreless: float
    modes: NDArray[np.float64]
    of_region: dict[int, NDArray[np.int64]]

    @classmethod
    def read(cls, results: SegmentationResults, plan: Plan) -> Calibration | None:
        """Read the decisions back; None when the method needed none.

        Raises
        ------
        LedgerError
            When another version of the program made them.
        """
        manifest = Manifest.read(results.manifest("calibrate"))
        if "gradient_threshold" not in manifest.result:
            return None
        if "coreless_threshold" not in manifest.result:
            raise LedgerError(
                "this segmentation was calibrated by another version of the program; remove calibrate.json from "
                f"{results.root} and start the workflow again."
            )
        with np.load(results.modes) as data:
            modes, region, representative = data["modes"], data["region"], data["representative"]
        cuts = np.flatnonzero(np.diff(region)) + 1
        groups = zip(np.split(region, cuts), np.split(representative, cuts), strict=True)
        of_region = {int(r[0]): np.unique(m) for r, m in groups if len(r)}
        thresholds = manifest.result["gradient_threshold"], manifest.result["coreless_threshold"]
        return cls(plan.region_grid, *thresholds, modes, of_region)

    def context(self, box: Box, source: Embedded) -> Context:
        """Give what concerns a box, in its frame: the modes of the regions that it touches."""
        regions = [self.of_region[r] for r in self.grid.touching(box) if r in self.of_region]
        near = self.modes[np.unique(np.concatenate(regions))] if regions else self.modes[:0]
        return Context(self.threshold, self.coreless, source.to_box(near, box.start).astype(np.float32))
