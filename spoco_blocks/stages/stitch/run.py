"""Stage `stitch`: one global decision, on tables alone, about which fragments are one object."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spoco_blocks.engine.layout import Layout, SegmentationResults
from spoco_blocks.engine.ledger import Records
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.errors import SettingsError
from spoco_blocks.settings.jobs import StitchJob, digest
from spoco_blocks.settings.segmentation import StitchingSettings
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.stitch.decision import decide, number_segments, went_by
from spoco_blocks.stages.stitch.holes import Filled, Pieces, fill_holes, load_pieces, segments_of_pieces
from spoco_blocks.stages.stitch.objects import Geometry, write_objects
from spoco_blocks.stages.stitch.seams import Planes, count_cuts, load_planes, report_seams
from spoco_blocks.stages.stitch.tables import Edges, Fragments, load_edges, load_fragments, load_overlaps
from spoco_blocks.stages.stitch.whole import Whole, join_blocks

VERSION = 5


@dataclass(frozen=True)
class Clustered:
    """What stage `cluster` left of a segmentation, and all that a decision needs.

    Attributes
    ----------
    results : SegmentationResults
        Where it lies.
    plan : Plan
        How the volume was cut.
    digest : str
        Digest of the stage's result.
    records : Records
        Of all blocks.
    final : bool
        Whether fragments are final objects.
    gaps : bool
        Whether records know of the background between fragments.
    least : int or None
        Where no cut must show, the smallest fragment that no seed grew to; None where cuts may show.
    tables : Path
        Where the tables lie while a decision is made; of another result of clustering they lie elsewhere.
    """

    results: SegmentationResults
    plan: Plan
    digest: str
    records: Records
    final: bool
    gaps: bool
    least: int | None
    tables: Path

    @classmethod
    def open(cls, layout: Layout, segmentation: str, stage: str) -> Clustered:
        """Open the records, for a stage that keeps its tables in a folder of its own.

        Raises
        ------
        LedgerError
            When the stage did not run or blocks are missing.
        """
        results = layout.segmentation(segmentation)
        plan = Plan.read(Manifest.read(results.manifest("plan")))
        found = Manifest.read(results.manifest("cluster", 0))
        records = Records(results.ledger("cluster"), found.result["records"], len(plan.cluster_grid))
        tables = results.ledger(stage) / f"tables-{found.digest}"
        final, gaps = bool(found.result["fragments_are_final"]), bool(found.result.get("gaps"))
        least = found.result["least"] if found.result.get("exact") else None
        return cls(results, plan, found.digest, records, final, gaps, least, tables)

    def load(self) -> tuple[Fragments, Edges]:
        """Join the tables of all blocks, in files."""
        load = load_overlaps if self.final else load_edges
        fragments, plan = load_fragments(self.records, self.tables), self.plan
        edges = load(self.records, plan.cluster_grid, fragments.offsets, planar=plan.planar, folder=self.tables)
        return fragments, edges

    def planes(self, pieces: Pieces) -> Planes:
        """Join what faces what across planes, in files."""
        folder, plan = self.tables / "planes", self.plan
        return load_planes(self.records, plan.cluster_grid, pieces.offsets, planar=plan.planar, folder=folder)

    def lookup(self, fragments: Fragments, edges: Edges, pieces: Pieces, settings: StitchingSettings) -> Filled:
        """Decide, number the segments, and fill their holes."""
        whole, distance = self.whole(fragments, edges), self.plan.object_distance
        roots = decide(
            whole.fragments, whole.edges, settings, final=self.final, folder=self.tables, object_distance=distance
        )
        ids = number_segments(roots, whole.fragments.voxels, settings.min_voxels, self.tables)
        ids = ids if whole.of_fragment is None else ids[whole.of_fragment]
        if not self.gaps:
            return Filled(ids)
        found = segments_of_pieces(ids, fragments, pieces)
        most = settings.fill_holes_voxels
        return fill_holes(self.records, self.plan, pieces, found, most) if most else Filled(found)

    def whole(self, fragments: Fragments, edges: Edges) -> Whole:
        """Join what is one fragment of the volume, where no cut must show."""
        if self.least is None:
            return Whole(fragments, edges, None)
        return join_blocks(self.records, fragments, edges, self.least)

    def check(self, settings: StitchingSettings) -> None:
        """Check that clustering recorded what a decision needs.

        Raises
        ------
        SettingsError
            When holes are to be filled that it did not look for, or exact stitching was chosen or given up since.
        """
        if settings.exact != (self.least is not None):
            raise SettingsError(
                f"stitching.exact is {settings.exact}, but {self.results.root.name} was clustered with "
                f"{not settings.exact}. Set it in the configuration and run snakemake, which clusters again."
            )
        if settings.fill_holes_voxels and not self.gaps:
            raise SettingsError(
                f"stitching.fill_holes_voxels is {settings.fill_holes_voxels}, but when {self.results.root.name} was "
                "clustered it was 0, and the background was not recorded. Set it in the configuration and run "
                "snakemake, which clusters again; from then on it can be changed without."
            )


def run_stitch(job: StitchJob, layout: Layout) -> Manifest:
    """Decide, and write the lookup table and the table of objects."""
    clustered = Clustered.open(layout, job.segmentation, "stitch")
    manifest = write_decision(job, clustered, *clustered.load())
    shutil.rmtree(clustered.results.ledger("stitch"))
    return manifest


def write_decision(job: StitchJob, clustered: Clustered, fragments: Fragments, edges: Edges) -> Manifest:
    """Decide on tables that are loaded, and write what follows from it."""
    results, plan, inputs = clustered.results, clustered.plan, {"cluster": clustered.digest}
    watch = Stopwatch("stitch", digest("stitch", VERSION, job.model_dump(mode="json"), inputs), inputs)
    settings: StitchingSettings = job.stitching
    clustered.check(settings)
    pieces = load_pieces(clustered.records, fragments, gaps=clustered.gaps)
    planes = clustered.planes(pieces)
    decided = clustered.lookup(fragments, edges, pieces, settings)
    np.save(results.lookup, decided.lookup)
    np.save(results.offsets, pieces.offsets)
    seams = count_cuts(planes, decided.lookup, clustered.tables / "seams")
    geometry = Geometry(plan.cluster_grid, plan.voxel_size_nm, plan.planar)
    segments = write_objects(
        results.objects,
        clustered.records,
        decided.lookup,
        pieces.offsets,
        geometry,
        seams,
        clustered.tables / "objects",
    )
    result = {
        "job": job.model_dump(mode="json"),
        "fragments": len(fragments.voxels) - 1,
        "edges": len(edges.pairs),
        "segments": segments,
        **went_by(settings, plan.object_distance, final=clustered.final),
        "holes": decided.holes,
        "hole_voxels": decided.voxels,
        "seams": report_seams(planes, seams, plan.cluster_grid),
    }
    return watch.finish(results.manifest("stitch"), result)
