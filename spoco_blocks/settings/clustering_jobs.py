"""What the stages are given that cluster."""

from __future__ import annotations

from typing import Any

from spoco_blocks.settings.base import Section
from spoco_blocks.settings.segmentation import (
    ClusteringSettings,
    MeshSettings,
    OmeZarrVersion,
    SegmentationSettings,
    SkeletonSettings,
    StitchingSettings,
)


class CalibrateJob(Section):
    """Decide on the volume what clustering decides once."""

    segmentation: str
    foreground_threshold: float | None
    clustering: ClusteringSettings | None
    exact: bool
    """Whether how the volume is cut must not show."""


class ClusterJob(CalibrateJob):
    """Cluster the blocks."""

    gaps: bool
    """Whether to record the background between fragments as well."""


class SampleJob(CalibrateJob):
    """Cluster some blocks without keeping what they are."""

    def cluster(self) -> ClusterJob:
        """Give the job that clusters them."""
        return ClusterJob(
            segmentation=self.segmentation,
            foreground_threshold=self.foreground_threshold,
            clustering=self.clustering,
            exact=self.exact,
            gaps=False,
        )


class EstimateJob(SampleJob):
    """Say what the blocks will cost."""

    gaps: bool
    raw_pyramid: bool
    ome_zarr_version: OmeZarrVersion
    meshes: MeshSettings | None
    skeletons: SkeletonSettings | None
    shards: int


class RecutJob(SampleJob):
    """Cluster a few blocks across the seams."""

    stitching: StitchingSettings


def clustering_job(section: SegmentationSettings, stage: str, name: str, shards: int) -> Section | None:
    """Give the job of a stage of a segmentation that clusters; None for another stage."""
    how: dict[str, Any] = {"foreground_threshold": section.foreground_threshold, "clustering": section.clustering}
    how["exact"] = section.stitching.exact
    gaps = section.stitching.fill_holes_voxels > 0
    if stage == "estimate":
        further = {key: getattr(section, key) for key in ("raw_pyramid", "ome_zarr_version", "meshes", "skeletons")}
        return EstimateJob(segmentation=name, **how, gaps=gaps, **further, shards=shards)
    if stage == "calibrate":
        return CalibrateJob(segmentation=name, **how)
    if stage == "cluster":
        return ClusterJob(segmentation=name, **how, gaps=gaps)
    if stage == "recut":
        return RecutJob(segmentation=name, **how, stitching=section.stitching)
    return None
