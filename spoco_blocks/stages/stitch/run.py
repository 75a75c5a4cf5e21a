"""Stage `stitch`: one global decision, on tables alone, about which fragments are one object."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from spoco_blocks.engine.layout import Layout, SegmentationResults
from spoco_blocks.engine.ledger import Records
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.settings.jobs import StitchJob, digest
from spoco_blocks.settings.segmentation import StitchingSettings
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.stitch.decision import decide, number_segments
from spoco_blocks.stages.stitch.objects import object_table
from spoco_blocks.stages.stitch.seams import count_cuts, load_planes, report_seams
from spoco_blocks.stages.stitch.tables import Edges, Fragments, load_edges, load_fragments, load_overlaps

VERSION = 3


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
    tables : Path
        Where the tables lie while a decision is made; of another result of clustering they lie elsewhere.
    """

    results: SegmentationResults
    plan: Plan
    digest: str
    records: Records
    final: bool
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
        return cls(results, plan, found.digest, records, bool(found.result["fragments_are_final"]), tables)

    def load(self) -> tuple[Fragments, Edges]:
        """Join the tables of all blocks, in files."""
        load = load_overlaps if self.final else load_edges
        fragments, plan = load_fragments(self.records, self.tables), self.plan
        edges = load(self.records, plan.cluster_grid, fragments.offsets, planar=plan.planar, folder=self.tables)
        return fragments, edges


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
    planes = load_planes(clustered.records, plan.cluster_grid, fragments.offsets, planar=plan.planar)
    roots = decide(fragments, edges, settings, final=clustered.final, folder=clustered.tables)
    lookup = number_segments(roots, fragments.voxels, settings.min_voxels)
    np.save(results.lookup, lookup)
    np.save(results.offsets, fragments.offsets)
    seams = count_cuts(planes, lookup)
    table = object_table(clustered.records, lookup, fragments.offsets, plan, seams)
    pq.write_table(table, results.objects)
    result = {
        "job": job.model_dump(mode="json"),
        "fragments": len(lookup) - 1,
        "edges": len(edges.pairs),
        "segments": table.num_rows,
        "seams": report_seams(planes, seams, plan.cluster_grid),
    }
    return watch.finish(results.manifest("stitch"), result)
