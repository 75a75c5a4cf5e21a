"""A segmentation to mesh, and what holds of meshes."""

from __future__ import annotations

import json
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import ndimage

from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.grid import Box
from spoco_blocks.kernels.downsample import downsample_mode
from spoco_blocks.learn.intensity import Normalisation
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.output import PredictedOutput
from spoco_blocks.stages.plan import Plan
from spoco_blocks.volumes import create_ome_zarr


def segmented(
    folder: Path, labels: np.ndarray, blocks, voxel_size_nm=(30.0, 20.0, 10.0), factors=(), planar=False, version="0.5"
) -> Layout:
    """A results folder as stages `plan` to `pyramid` leave it, with these segments."""
    layout = Layout(folder)
    results = layout.segmentation("s")
    levels = create_ome_zarr(
        str(results.segments), shape=labels.shape, dtype="uint32", chunk_shape=blocks,
        shard_shape=blocks if version == "0.5" else None, voxel_size_nm=voxel_size_nm, levels=1 + len(factors),
        factors=factors, is_label=True, name="segmentation", version=version,
    )  # fmt: skip
    voxels = labels
    for level, factor in zip(levels, [(1, 1, 1), *factors], strict=True):
        voxels = downsample_mode(voxels, factor) if max(factor) > 1 else voxels
        level.write(Box.of_shape(voxels.shape), voxels)
    predicted = PredictedOutput(
        raw=Source(uri="r"), mask=None, origin=(0, 0, 0), shape=labels.shape, normalisation=Normalisation((0,), (1,)),
        checkpoint="", weights="g", identity="", precision="float32", patch_voxels=None, batch=1, scale=None,
        channels=4, offsets=0,
    )  # fmt: skip
    plan = Plan(
        origin=(0, 0, 0), shape=labels.shape, block_shape=blocks, network_halo=(0, 0, 0), stride=(1, 1, 1),
        cluster_halo=(0, 0, 0), region_shape=(64, 64, 64), voxel_size_nm=voxel_size_nm, coordinate_scale=None,
        planar=planar, offsets=(), neighbours=0, clustering_kind="modes", foreground_threshold=0.3,
        smallest_voxels=60, predicted=predicted, stream=False, levels=len(levels), factors=factors,
        object_distance=1.0,
        step=(2, 2, 2),
    )  # fmt: skip
    Manifest("plan", "p", result={"plan": plan.describe()}).write(results.manifest("plan"))
    Manifest("pyramid", "y").write(results.manifest("pyramid"))
    pq.write_table(object_table(labels, np.array(voxel_size_nm)), results.objects)
    return layout


def object_table(labels: np.ndarray, size_nm: np.ndarray) -> pa.Table:
    """What meshes and skeletons need of the table of objects; the surface is that of a ball of this volume."""
    voxels = np.bincount(labels.ravel())[1:]
    volume = voxels * (size_nm / 1000).prod()
    surface = (36 * np.pi) ** (1 / 3) * volume ** (2 / 3)
    ids = np.arange(1, len(voxels) + 1, dtype=np.uint64)
    boxes = [box or (slice(0, 0),) * 3 for box in ndimage.find_objects(labels)]
    ends = {f"{axis}{end}": np.array([(box[place].start, box[place].stop)[end] for box in boxes], np.int64)
            for place, axis in enumerate("zyx") for end in (0, 1)}  # fmt: skip
    return pa.table({"id": ids, "voxels": voxels, "volume_um3": volume, "surface_um2": surface} | ends)


def ids_in(folder: Path) -> list[int]:
    """Objects that have a manifest."""
    return sorted(int(path.name.split(":")[0]) for path in folder.iterdir() if path.name.count(":") == 1)


def corners(folder: Path, number: int) -> np.ndarray:
    """All triangles of an object as positions, (m, 3 corners, x y z) in nm; read as the format's description says."""
    parts = [np.zeros((0, 3, 3), np.float32)]
    for name in json.loads((folder / f"{number}:0").read_text())["fragments"]:
        data = (folder / name).read_bytes()
        (count,) = struct.unpack("<I", data[:4])
        vertices = np.frombuffer(data[4 : 4 + 12 * count], "<f4").reshape(-1, 3)
        parts.append(vertices[np.frombuffer(data[4 + 12 * count :], "<u4").reshape(-1, 3)])
    return np.concatenate(parts)


def is_watertight(triangles: np.ndarray) -> bool:
    """Tell whether each edge is passed once in both directions: closed, and turned the same way everywhere."""
    _, place = np.unique(triangles.reshape(-1, 3), axis=0, return_inverse=True)
    place = place.reshape(-1, 3)
    edges = Counter((a, b) for row in place.tolist() for a, b in zip(row, row[1:] + row[:1], strict=True))
    return set(edges.values()) == {1} and all((b, a) in edges for a, b in edges)


def volume_nm3(triangles: np.ndarray) -> float:
    """Volume by the divergence theorem; positive where normals point outwards."""
    a, b, c = np.moveaxis(triangles.astype(np.float64), 1, 0)
    return float((a * np.cross(b, c)).sum() / 6)


def canonical(triangles: np.ndarray) -> list:
    """Triangles in an order of their own, each from its smallest corner on."""
    rows = [[tuple(corner) for corner in triangle] for triangle in triangles.tolist()]
    return sorted(tuple(row[row.index(min(row)) :] + row[: row.index(min(row))]) for row in rows)
