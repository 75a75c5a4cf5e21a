"""Stage `plan`: cut a volume into blocks, check that model and volume fit, create the stores that blocks write."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from spoco_blocks.clustering import METHODS, Method
from spoco_blocks.engine.layout import Layout, SegmentationResults
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.engine.runner import check_writable
from spoco_blocks.errors import CheckpointError, VolumeError
from spoco_blocks.grid import BlockGrid, Box, Triple, triple
from spoco_blocks.learn.checkpoint import Checkpoint, load_checkpoint, weights_digest
from spoco_blocks.learn.network import isotropic_axes
from spoco_blocks.settings.jobs import PlanJob, digest
from spoco_blocks.stages.block_shapes import CHUNK_EDGE, block_edge, divisor_up_to, pyramid_factors
from spoco_blocks.stages.check import VOXEL_SIZE_TOLERANCE
from spoco_blocks.volumes import Volume, create_ome_zarr, create_zarr, open_volume

VERSION = 3
SAID_BY_THE_MODEL = ("clustering_kind", "foreground_threshold", "smallest_voxels")
REGION_EDGE = 64


@dataclass(frozen=True)
class Plan:
    """How one volume is cut, read from the manifest of stage `plan`.

    Attributes
    ----------
    origin : tuple of int
        Where the part that is segmented starts in the volume; everything else counts from there.
    shape, block_shape : tuple of int
        That part's and a block's.
    network_halo, stride : tuple of int
        Of the network, computed from its architecture.
    cluster_halo : tuple of int
        Margin that clustering sees.
    region_shape : tuple of int
        Regions of the volume in which modes are sought; independent of the block shape.
    voxel_size_nm : tuple of float
        Voxel size.
    coordinate_scale : tuple of float or None
        Voxels over which position adds 1 to the embedding.
    planar : bool
        Whether the first axis counts independent images.
    channels : int
        Embedding channels.
    offsets : tuple of tuple of int
        Offsets of the affinities that the network predicts; empty = none.
    neighbours : int
        How many of them are direct neighbours.
    clustering_kind, foreground_threshold, smallest_voxels : str, float, int or None
        Method, threshold and size of a small object, as the model says.
    checkpoint : str
        The model's file.
    weights : str
        Network that predicts, "f" or "g".
    levels : int
        Levels of the output's pyramid.
    factors : tuple of tuple of int
        Downsampling between one level and the next.
    """

    origin: Triple
    shape: Triple
    block_shape: Triple
    network_halo: Triple
    stride: Triple
    cluster_halo: Triple
    region_shape: Triple
    voxel_size_nm: tuple[float, float, float]
    coordinate_scale: tuple[float, float, float] | None
    planar: bool
    channels: int
    offsets: tuple[Triple, ...]
    neighbours: int
    clustering_kind: str
    foreground_threshold: float
    smallest_voxels: int | None
    checkpoint: str
    weights: str
    levels: int
    factors: tuple[Triple, ...]

    @property
    def embed_grid(self) -> BlockGrid:
        """Blocks of stage `embed`."""
        return BlockGrid(self.shape, self.block_shape, self.network_halo, self.stride)

    @property
    def cluster_grid(self) -> BlockGrid:
        """Blocks of stage `cluster`, with the same inner boxes."""
        return BlockGrid(self.shape, self.block_shape, self.cluster_halo)

    @property
    def region_grid(self) -> BlockGrid:
        """Regions in which modes are sought; one voxel of halo for the gradient."""
        return BlockGrid(self.shape, self.region_shape, triple((0 if self.planar else 1, 1, 1)))

    def method(self, chosen: Method | None) -> Method:
        """Give the clustering method: the chosen one, or the model's."""
        return METHODS[self.clustering_kind]() if chosen is None else chosen

    def threshold(self, chosen: float | None) -> float:
        """Give the foreground threshold: the chosen one, or the model's."""
        return self.foreground_threshold if chosen is None else chosen

    @classmethod
    def read(cls, manifest: Manifest) -> Plan:
        """Read the plan back."""
        data = dict(manifest.result["plan"])
        for key in ("origin", "shape", "block_shape", "network_halo", "stride", "cluster_halo", "region_shape"):
            data[key] = triple(data[key])
        z, y, x = data["voxel_size_nm"]
        data["voxel_size_nm"] = (z, y, x)
        for key in ("factors", "offsets"):
            data[key] = tuple(triple(entry) for entry in data[key])
        if data["coordinate_scale"] is not None:
            data["coordinate_scale"] = tuple(float("inf") if s is None else s for s in data["coordinate_scale"])
        return cls(**data)


def run_plan(job: PlanJob, layout: Layout) -> Manifest:
    """Plan a segmentation and create its stores.

    Raises
    ------
    CheckpointError
        When the model was made for other data.
    GridError
        When blocks and stores do not fit.
    """
    results = layout.segmentation(job.segmentation)
    labels = Manifest.read(layout.volume(job.volume.volume).manifest)
    path = Path(job.checkpoint) if job.checkpoint else layout.model(job.model).checkpoint
    checkpoint = load_checkpoint(path)
    inputs = {"labels": labels.digest, "weights": weights_digest(checkpoint, ema=job.weights == "g")}
    use = [getattr(checkpoint, name) for name in (*SAID_BY_THE_MODEL, "coordinate_scale_nm")]
    made = {"network": asdict(checkpoint.plan), "use": use}
    watch = Stopwatch("plan", digest("plan", VERSION, job.model_dump(mode="json"), inputs, made), inputs)
    check_fits(checkpoint, labels.result, path)
    plan = make_plan(job, labels.result, checkpoint, path)
    create_stores(plan, results)
    stores = [results.embeddings, results.foreground, results.fragments, results.segments]
    for store in stores + [results.affinities] * bool(plan.offsets):
        check_writable(plan.cluster_grid, open_volume(store).meta.shard_shape)
    described = {**plan.__dict__, "coordinate_scale": _finite(plan.coordinate_scale)}
    result = {"job": job.model_dump(mode="json"), "plan": described, "blocks": len(plan.cluster_grid)}
    return watch.finish(results.manifest("plan"), result)


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
    """Compute blocks, halos and pyramid from the settings, the volume and the network."""
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
        network_halo=checkpoint.plan.halo,
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
        channels=checkpoint.plan.embedding_channels,
        offsets=checkpoint.plan.offsets,
        neighbours=checkpoint.plan.neighbours,
        **{name: getattr(checkpoint, name) for name in SAID_BY_THE_MODEL},
        checkpoint=str(path),
        weights=job.weights,
        levels=len(factors) + 1,
        factors=factors,
    )


def create_stores(plan: Plan, results: SegmentationResults) -> None:
    """Create the arrays that blocks write; a store that is there and fits is kept, with what is in it."""
    common = store_layout(plan)
    arrays: list[tuple[Path, str, int | None]] = [
        (results.embeddings, "float16", plan.channels),
        (results.foreground, "uint8", None),
        (results.fragments, "uint32", None),
    ]
    if plan.offsets:
        arrays.append((results.affinities, "uint8", len(plan.offsets)))
    else:
        shutil.rmtree(results.affinities, ignore_errors=True)
    for path, dtype, channels in arrays:
        if not store_fits(path, dtype, channels, common):
            _forget(path, results, "cluster" if path == results.fragments else "embed")
            create_zarr(str(path), dtype=dtype, channels=channels, overwrite=True, **common)
    if not (store_fits(results.segments, "uint32", None, common) and _levels_fit(results.segments, plan)):
        _forget(results.segments, results, "relabel", "pyramid")
        create_ome_zarr(
            str(results.segments), dtype="uint32", levels=plan.levels, factors=plan.factors, is_label=True,
            name="segmentation", **common,
        )  # fmt: skip


def store_layout(plan: Plan) -> dict[str, Any]:
    """Give what all stores of a plan have in common, as `create_zarr` takes it."""
    return {
        "shape": plan.shape,
        "chunk_shape": triple(divisor_up_to(edge, CHUNK_EDGE) for edge in plan.block_shape),
        "shard_shape": plan.block_shape,
        "voxel_size_nm": plan.voxel_size_nm,
    }


def _forget(store: Path, results: SegmentationResults, *stages: str) -> None:
    """Remove a store and the records that say its blocks are done."""
    for stage in stages:
        shutil.rmtree(results.ledger(stage), ignore_errors=True)
    shutil.rmtree(store, ignore_errors=True)


def store_fits(path: Path, dtype: str, channels: int | None, expected: dict[str, Any]) -> bool:
    """Tell whether an array is there already and laid out as `store_layout` says."""
    try:
        volume: Volume = open_volume(path)
    except (VolumeError, OSError):
        return False
    meta = volume.meta
    return (
        (meta.dtype, meta.channels) == (np.dtype(dtype), channels)
        and (meta.shape, meta.chunk_shape) == (expected["shape"], expected["chunk_shape"])
        and (meta.shard_shape, meta.voxel_size_nm) == (expected["shard_shape"], expected["voxel_size_nm"])
    )


def _levels_fit(path: Path, plan: Plan) -> bool:
    shape = plan.shape
    for level, factor in enumerate(plan.factors, 1):
        shape = triple(-(-s // f) for s, f in zip(shape, factor, strict=True))
        try:
            if open_volume(path, level=level).meta.shape != shape:
                return False
        except VolumeError:
            return False
    return True


def _finite(scale: tuple[float, float, float] | None) -> list[float | None] | None:
    # JSON knows no infinity.
    return None if scale is None else [None if s == float("inf") else s for s in scale]
