"""What the optional stages that follow a segmentation are given."""

from __future__ import annotations

from spoco_blocks.settings.base import Section
from spoco_blocks.settings.segmentation import MeshSettings, SegmentationSettings, SkeletonSettings


class MeshJob(Section):
    """Mesh the objects."""

    segmentation: str
    meshes: MeshSettings


class SkeletonJob(Section):
    """Find the centre lines of the objects."""

    segmentation: str
    skeletons: SkeletonSettings


def shape_job(section: SegmentationSettings, stage: str, name: str) -> Section | None:
    """Give the job of stage `mesh` or `skeleton` of a segmentation; None where it has none, or for another stage."""
    if stage == "mesh" and section.meshes is not None:
        return MeshJob(segmentation=name, meshes=section.meshes)
    if stage == "skeleton" and section.skeletons is not None:
        return SkeletonJob(segmentation=name, skeletons=section.skeletons)
    return None
