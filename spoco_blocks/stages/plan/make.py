"""Blocks, halos and pyramid, computed from the settings, the volume and the network."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from spoco_blocks.errors import CheckpointError
from spoco_blocks.grid import Box, triple
from spoco_blocks.learn.checkpoint import Checkpoint, weights_digest
from spoco_blocks.learn.intensity import Normalisation
from spoco_blocks.learn.network_plan import isotropic_axes
from spoco_blocks.settings.jobs import PlanJob
from spoco_blocks.stages.block_shapes import block_edge, pyramid_factors
from spoco_blocks.stages.check import VOXEL_SIZE_TOLERANCE
from spoco_blocks.stages.mask import open_mask
from spoco_blocks.stages.output import PredictedOutput
from spoco_blocks.stages.plan.planned import Plan
from spoco_blocks.stages.sources import open_raw

SAID_BY_THE_MODEL = ("clustering_kind", "foreground_threshold", "smallest_voxels", "object_distance")
REGION_EDGE = 64


def check_fits(checkpoint: Checkpoint, volume: dict[str, Any], path: Path) -> None:
    """Check that a model can be applied to a volume.

    Raises
    ------
    CheckpointError
        When channels, dimension or voxel size differ.
    """
    planar = volume["planar"]
    if checkpoint.plan.in_channels != volume["channels"]:
        raise CheckpointError(
            f"{path} was trained on {checkpoint.plan.in_channels} channels, the volume has {volume['channels']}; train "
            "a model for this kind of data."
        )
    if checkpoint.planar != planar:
        kinds = {True: "2D images", False: "3D volumes"}
        raise CheckpointError(
            f"{path} was trained on {kinds[checkpoint.planar]}, this volume is one of {kinds[planar]}; train a model "
            "for this kind of data."
        )
    if not np.allclose(checkpoint.voxel_size_nm, volume["voxel_size_nm"], rtol=VOXEL_SIZE_TOLERANCE):
        raise CheckpointError(
            f"{path} was trained at {checkpoint.voxel_size_nm} nm a voxel, the volume has {volume['voxel_size_nm']}; "
            "choose the `level` of the raw data that comes nearest, or train a model at this voxel size."
        )


def make_plan(job: PlanJob, volume: dict[str, Any], checkpoint: Checkpoint, path: Path) -> Plan:
    """Compute blocks, halos and pyramid; the scale of int8 embeddings is left to samples."""
    part = Box(*map(triple, volume["training"])) if job.training_part else Box.of_shape(volume["shape"])
    shape = part.shape
    planar, stride = checkpoint.planar, checkpoint.plan.stride
    z, y, x = volume["voxel_size_nm"]
    wanted = [
        block_edge(min(want, extent), step)
        for want, extent, step in zip(job.blocks.shape_voxels, shape, stride, strict=True)
    ]
    if planar:
        wanted[0] = 1
    finest = min(y, x) if planar else min(z, y, x)
    fine = isotropic_axes((z, y, x), planar)
    halo = job.blocks.halo_voxels
    scale_nm = checkpoint.coordinate_scale_nm
    factors = pyramid_factors(shape, (z, y, x), planar)
    return Plan(
        origin=part.start,
        shape=shape,
        block_shape=triple(wanted),
        network_halo=checkpoint.plan.mirrored_halo if job.prediction.mirrored else checkpoint.plan.halo,
        stride=stride,
        # Across coarse sections the same length is fewer voxels.
        cluster_halo=triple(
            0 if planar and axis == 0 else halo if fine[axis] else ceil(halo * finest / size)
            for axis, size in enumerate((z, y, x))
        ),
        region_shape=(1, 4 * REGION_EDGE, 4 * REGION_EDGE) if planar else (REGION_EDGE,) * 3,
        voxel_size_nm=(z, y, x),
        coordinate_scale=None
        if scale_nm is None
        else (float("inf") if planar else scale_nm / z, scale_nm / y, scale_nm / x),
        planar=planar,
        step=checkpoint.plan.step,
        offsets=checkpoint.plan.offsets,
        neighbours=checkpoint.plan.neighbours,
        **{name: getattr(checkpoint, name) for name in SAID_BY_THE_MODEL},
        predicted=_predicted(job, part, volume, checkpoint, path),
        stream=job.embeddings == "stream",
        levels=len(factors) + 1,
        factors=factors,
    )


def _predicted(job: PlanJob, part: Box, volume: dict[str, Any], checkpoint: Checkpoint, path: Path) -> PredictedOutput:
    raw = open_raw(job.volume.raw, job.volume.voxel_size_nm)
    return PredictedOutput(
        raw=job.volume.raw,
        mask=None if job.mask is None else open_mask(job.mask, raw),
        origin=part.start,
        shape=part.shape,
        normalisation=Normalisation(tuple(volume["intensity_low"]), tuple(volume["intensity_high"])),
        checkpoint=str(path),
        weights=job.weights,
        identity=weights_digest(checkpoint, ema=job.weights == "g"),
        precision=job.prediction.precision,
        patch_voxels=job.prediction.patch_voxels,
        batch=job.prediction.batch,
        mirrored=job.prediction.mirrored,
        scale=None,
        channels=checkpoint.plan.embedding_channels,
        offsets=len(checkpoint.plan.offsets),
        other=weights_digest(checkpoint, ema=job.weights == "f") if job.both_networks else None,
    )
