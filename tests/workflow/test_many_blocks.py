"""The number of Snakemake's jobs follows from the shards, not from the blocks."""

from __future__ import annotations

import re

from phantoms import ball_configuration, write_configuration

from spoco_blocks.volumes import create_zarr


def test_a_million_blocks_are_a_few_hundred_jobs(snakemake, tmp_path):
    tree = ball_configuration(tmp_path, shards=64)
    # Nothing is written to it: chunks that are not there are empty.
    raw = tmp_path / "large.zarr"
    create_zarr(str(raw), shape=(6400,) * 3, dtype="uint8", chunk_shape=(64,) * 3, voxel_size_nm=(500, 500, 500))
    tree["volumes"]["large"] = {"raw": {"uri": str(raw)}}
    blocks = {"shape_voxels": [64, 64, 64], "halo_voxels": 8}
    tree["segmentations"] = {"large": {"volume": "large", "model": "balls", "blocks": blocks}}
    said = snakemake(write_configuration(tmp_path, tree), "--dry-run").stdout
    assert re.search(r"^embed +64$", said, re.MULTILINE)
    assert int(re.search(r"^total +(\d+)$", said, re.MULTILINE).group(1)) <= 300
