"""The segmentation with all its levels: what each holds, and that it is OME-Zarr as the specification's models say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import ome_zarr_models
import pytest
import zarr
from meshes import segmented
from ome_zarr_models.v04.image_label import ImageLabel as ImageLabel04
from ome_zarr_models.v05.image_label import ImageLabel as ImageLabel05

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.ledger import Ledger
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.errors import LedgerError
from spoco_blocks.grid import BlockGrid, Box
from spoco_blocks.kernels.downsample import downsample_mode
from spoco_blocks.settings.jobs import SegmentationJob
from spoco_blocks.stages.block_shapes import pyramid_factors
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.plan.stores import create_stores
from spoco_blocks.stages.pyramid import run_pyramid
from spoco_blocks.volumes import find_pyramid, open_volume

CUT = [
    ((40, 150, 131), (16, 32, 32), (500.0, 500.0, 500.0), False),
    ((9, 200, 140), (3, 64, 64), (50.0, 4.5, 5.0), False),
    ((4, 130, 300), (1, 32, 64), (1.0, 1.0, 1.0), True),
]


def whole(uri):
    volume = open_volume(uri)
    return volume.read(Box.of_shape(volume.meta.shape))


def relabelled(folder, shape, blocks, size_nm, planar, version="0.5") -> tuple[Layout, np.ndarray]:
    """A results folder as stage `relabel` leaves it."""
    labels = np.random.default_rng(0).integers(0, 9, shape).astype(np.uint32)
    layout = segmented(folder, labels[:, :8, :8], (1, 8, 8), size_nm, planar=planar)
    results = layout.segmentation("s")
    factors = pyramid_factors(shape, size_nm, planar)
    plan = replace(
        Plan.read(Manifest.read(results.manifest("plan"))),
        shape=shape, block_shape=blocks, levels=len(factors) + 1, factors=factors,
    )  # fmt: skip
    Manifest("plan", "p", result={"plan": plan.describe()}).write(results.manifest("plan"))
    create_stores(plan, results, version)
    open_volume(results.segments).write(Box.of_shape(shape), labels)
    with Ledger(results.ledger("relabel"), "shard-0", "r") as ledger:
        for block in BlockGrid(shape, blocks):
            ledger.commit(block.index, {})
    Manifest("relabel", "r", result={"records": "r"}).write(results.manifest("relabel", 0))
    return layout, labels


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(("shape", "blocks", "size_nm", "planar"), CUT)
def test_every_level_holds_the_most_frequent_labels_and_is_valid(tmp_path, shape, blocks, size_nm, planar, version):
    layout, labels = relabelled(tmp_path, shape, blocks, size_nm, planar, version)
    factors = pyramid_factors(shape, size_nm, planar)
    assert run_pyramid(SegmentationJob(segmentation="s"), layout, Execution()).result["levels"] == len(factors) + 1 > 2
    store = layout.segmentation("s").segments
    group = zarr.open_group(store, mode="r")
    assert ome_zarr_models.open_ome_zarr(group).ome_zarr_version == version
    assert group.metadata.zarr_format == (2 if version == "0.4" else 3)
    model = (ImageLabel04 if version == "0.4" else ImageLabel05).from_zarr(group)
    (multiscale,) = (model.attributes if version == "0.4" else model.attributes.ome).multiscales
    assert [(axis.name, axis.unit) for axis in multiscale.axes] == [(name, "nanometer") for name in "zyx"]
    assert len(multiscale.datasets) == len(factors) + 1
    window = np.ones(3)
    for dataset, factor in zip(multiscale.datasets, [(1, 1, 1), *factors], strict=True):
        labels, window = downsample_mode(labels, factor) if max(factor) > 1 else labels, window * factor
        np.testing.assert_array_equal(group[dataset.path][:], labels)
        scale, *moved = dataset.coordinateTransformations
        np.testing.assert_allclose(scale.scale, window * size_nm)
        # The centre of a window of voxels, from that of the first voxel.
        np.testing.assert_allclose(moved[0].translation if moved else 0, (window - 1) / 2 * size_nm)


def test_a_segmentation_with_missing_blocks_gets_no_pyramid(tmp_path):
    layout, _ = relabelled(tmp_path, *CUT[0])
    (layout.segmentation("s").ledger("relabel") / "shard-0.ledger").unlink()
    with pytest.raises(LedgerError, match="blocks"):
        run_pyramid(SegmentationJob(segmentation="s"), layout, Execution())


@pytest.mark.parametrize(("shape", "blocks", "size_nm", "planar"), CUT)
def test_no_chunk_of_version_04_is_written_by_two_blocks(tmp_path, shape, blocks, size_nm, planar):
    layout, _ = relabelled(tmp_path, shape, blocks, size_nm, planar, "0.4")
    results = layout.segmentation("s")
    plan = Plan.read(Manifest.read(results.manifest("plan")))
    for level in range(plan.levels):
        grid, chunk = plan.level_grid(level), np.array(open_volume(results.segments, level=level).meta.chunk_shape)
        writers = {}
        for block in grid:
            first, last = block.inner.start // chunk, (np.array(block.inner.stop) - 1) // chunk
            for place in np.ndindex(*(last - first + 1)):
                assert writers.setdefault(tuple(first + place), block.index) == block.index
        assert grid.shape == open_volume(results.segments, level=level).meta.shape


def test_a_new_version_makes_the_segmentation_anew_and_nothing_before_it(trained):
    first = trained.segment("version")
    segments = whole(first.segments)
    for version in ("0.4", "0.5"):
        results = trained.segment("version", ome_zarr_version=version)
        assert find_pyramid(results.segments)[0].version == version
        computed = [Manifest.read(results.manifest(s, 0)).result["computed"] for s in ("embed", "cluster", "relabel")]
        assert computed == [0, 0, 8]
        np.testing.assert_array_equal(whole(results.segments), segments)
