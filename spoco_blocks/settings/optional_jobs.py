"""What the optional stages of a segmentation are given."""

from __future__ import annotations

from spoco_blocks.settings.base import Section
from spoco_blocks.settings.segmentation import MeshSettings, OmeZarrVersion, SegmentationSettings, SkeletonSettings


class RawPyramidJob(Section):
    """Copy the raw data with the levels of the segmentation."""

    segmentation: str
    ome_zarr_version: OmeZarrVersion


class MeshJob(Section):
    """Mesh the objects."""

    segmentation: str
    meshes: MeshSettings


class SkeletonJob(Section):
    """Find the centre lines of the objects."""

    segmentation: str
    skeletons: SkeletonSettings


def optional_job(section: SegmentationSettings, stage: str, name: str) -> Section | None:
    """Give the job of an optional stage of a segmentation; None where it is not asked for, or for another stage."""
    if stage == "raw_pyramid" and section.raw_pyramid:
        return RawPyramidJob(segmentation=name, ome_zarr_version=section.ome_zarr_version)
    if stage == "mesh" and section.meshes is not None:
        return MeshJob(segmentation=name, meshes=section.meshes)
    if stage == "skeleton" and section.skeletons is not None:
        return SkeletonJob(segmentation=name, skeletons=section.skeletons)
    return None
