"""What napari makes of a raw pyramid and of a segmentation, of both versions of OME-Zarr, beside what was written."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.frame import Claim, Report, Row
from bench.peers import environment, run_script
from spoco_blocks.grid import Box
from spoco_blocks.kernels.downsample import downsample_mean, downsample_mode
from spoco_blocks.volumes import create_ome_zarr
from spoco_blocks.volumes.ome_zarr_create import Version

SHAPE, SIZE_NM, FACTORS = (24, 150, 170), (40.0, 20.0, 20.0), ((1, 2, 2), (2, 2, 2))
BLACK, WHITE = 100.0, 900.0
PACKAGES = ("napari==0.9.2", "napari-ome-zarr==0.10.0")


def write(uri: str, finest: Any, version: Version, *, is_label: bool) -> list[Any]:
    """Write an image as the pipeline does; gives its levels."""
    how: dict[str, Any] = {"shard_shape": (12, 64, 128)} if version == "0.5" else {"shard_shape": None}
    volumes = create_ome_zarr(
        uri, shape=SHAPE, dtype=finest.dtype, chunk_shape=(12, 64, 64), voxel_size_nm=SIZE_NM, levels=3,
        factors=FACTORS, is_label=is_label, name="image", version=version,
        windows=[] if is_label else [(BLACK, WHITE)], **how,
    )  # fmt: skip
    levels = [finest]
    for factor in FACTORS:
        levels.append((downsample_mode if is_label else downsample_mean)(levels[-1], factor))
    for volume, voxels in zip(volumes, levels, strict=True):
        volume.write(Box.of_shape(voxels.shape), voxels)
    return levels


def run(quick: bool) -> Report:
    """Run the benchmark; the short run is the whole."""
    report, python, rng = Report(), environment(*PACKAGES), np.random.default_rng(0)
    for version in ("0.4", "0.5"):
        for name, is_label in (("raw", False), ("labels", True)):
            voxels = rng.integers(0, 1000, SHAPE).astype(np.uint32 if is_label else np.uint16)
            with tempfile.TemporaryDirectory() as folder:
                levels = write(f"{folder}/{name}.zarr", voxels, version, is_label=is_label)
                found = run_script(python, "napari_layer.py", (f"{folder}/{name}.zarr", folder), Path(folder))
                theirs = [np.load(Path(folder) / f"{level}.npy") for level in range(len(found["levels"]))]
            subject = f"{name}, OME-Zarr {version}"
            report.rows.append(Row(subject, "levels", len(levels), len(theirs), "napari"))
            same = [np.array_equal(a, b) for a, b in zip(levels, theirs, strict=False)]
            known = (found["kind"] == "Labels") == is_label and np.allclose(found["scale"], SIZE_NM)
            shown = is_label or found["limits"] == [BLACK, WHITE]
            report.claims += [
                Claim(f"{subject}: levels that napari reads as written", sum(same), at_least=len(levels)),
                Claim(f"{subject}: kind, voxel size and contrast as stated", known and shown, at_least=1),
            ]
    report.notes.append(
        f"{', '.join(PACKAGES)}, without a window: the layers that `napari --plugin napari-ome-zarr` makes."
    )
    return report
