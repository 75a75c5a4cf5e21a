"""How much the cut into blocks shows."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from pipeline import punch_holes
from sklearn.metrics import adjusted_rand_score

from bench.phantoms import make
from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.grid import BlockGrid, Box
from spoco_blocks.kernels.contingency import contingency
from spoco_blocks.settings import jobs, parse_settings
from spoco_blocks.stages.recut import across, adjusted_rand, run_recut, sampled
from spoco_blocks.volumes import open_volume


def recut(trained, name, edit=None, **section):
    """Segment, and say how well blocks across the seams agree."""
    results = trained.segment(name, edit=edit, **section)
    tree = trained.tree | {"segmentations": {name: trained.tree["segmentations"]["balls"] | section}}
    job = jobs.segmentation_job(parse_settings(tree), "recut", name)
    return results, job, run_recut(job, trained.layout, Execution()).result


def replaced(phantom):
    """Put a phantom in the place of what the network said."""

    def edit(results):
        everything = Box.of_shape(open_volume(results.foreground).meta.shape)
        place = tuple(slice(0, min(a, b)) for a, b in zip(phantom.truth.shape, everything.shape, strict=True))
        embeddings = np.zeros((len(phantom.embeddings), *everything.shape), np.float16)
        foreground = np.zeros(everything.shape, np.uint8)
        embeddings[:, *place], foreground[place] = phantom.embeddings[:, *place], 255 * phantom.foreground[place]
        open_volume(results.embeddings).write(everything, embeddings)
        open_volume(results.foreground).write(everything, foreground)

    return edit


def test_exactly_stitched_blocks_agree_to_the_voxel(trained):
    """However little embeddings and clustering suit each other, so that blocks that may show do."""
    found = {}
    for exact in (True, False):
        chosen = {
            "clustering": {"kind": "modes"}, "blocks": {"shape_voxels": [20, 24, 32]}, "stitching": {"exact": exact},
        }  # fmt: skip
        phantom = make((40, 48, 64), 40, channels=4, seed=0)
        _, _, found[exact] = recut(trained, f"recut-{exact}", replaced(phantom), **chosen)
        assert found[exact]["blocks"] == 1
        assert found[exact]["compared_voxels"] > 1000
    assert (found[True]["recut_ari"], found[True]["differing_voxels"]) == (1.0, 0)
    assert found[False]["recut_ari"] < 0.9
    assert found[False]["differing_voxels"] is None


def test_holes_that_were_filled_are_no_difference(trained):
    chosen = {
        "clustering": {"kind": "modes"}, "blocks": {"shape_voxels": [20, 24, 32]}, "foreground_threshold": 0.2,
        "stitching": {"exact": True, "fill_holes_voxels": 30},
    }  # fmt: skip
    results, _, result = recut(trained, "recut-holes", punch_holes, **chosen)
    assert Manifest.read(results.manifest("stitch")).result["hole_voxels"] > 100
    assert (result["recut_ari"], result["differing_voxels"]) == (1.0, 0)


@pytest.mark.parametrize("kind", [{"kind": "modes"}, {"kind": "mutex"}])
def test_a_seam_that_shows_is_seen(trained, kind):
    """Every block's objects get ids of their own, as if nothing had been stitched."""
    name = f"recut-apart-{kind['kind']}"
    results, job, before = recut(trained, name, clustering=kind, blocks={"shape_voxels": [20, 24, 32]})
    plan_shape = open_volume(results.segments).meta.shape
    volume = open_volume(results.segments)
    for block in BlockGrid(plan_shape, (20, 24, 32)):
        segments = volume.read(block.inner)
        volume.write(block.inner, np.where(segments > 0, segments + 1000 * block.index, 0).astype(np.uint32))
    results.manifest("recut").unlink()
    shutil.rmtree(results.ledger("recut"))
    after = run_recut(job, trained.layout, Execution()).result
    assert before["recut_ari"] > 0.9
    assert after["recut_ari"] < before["recut_ari"] - 0.1


def test_one_block_and_streamed_blocks_have_nothing_to_compare(trained):
    _, _, result = recut(trained, "recut-one", blocks={"shape_voxels": [64, 64, 64]})
    assert result["blocks"] == 0
    _, _, result = recut(trained, "recut-streamed", embeddings="stream")
    assert result["blocks"] == 0


def test_blocks_lie_across_all_faces():
    grid = BlockGrid((10, 20, 33), (10, 8, 8), (0, 2, 2))
    for index in sampled(grid, planar=False):
        moved = across(grid, grid.block(index), planar=False)
        assert moved.inner.start[0] == 0
        assert all(start % 8 == 4 for start in moved.inner.start[1:])
        assert sum(moved.outer.start) % 2 == 0
        assert moved.outer.contains(moved.inner)
    assert len(sampled(grid, planar=False)) == 8
    assert sampled(BlockGrid((5, 8, 8), (1, 8, 8)), planar=True) == ()
    assert len(sampled(BlockGrid((5, 16, 8), (1, 8, 8)), planar=True)) == 5


def test_adjusted_rand_index_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    first = rng.integers(1, 6, 500)
    second = np.where(rng.random(500) < 0.7, first, rng.integers(1, 9, 500))
    table = contingency(first.astype(np.uint32)[None, None], second.astype(np.uint32)[None, None])
    assert adjusted_rand(*table) == pytest.approx(adjusted_rand_score(first, second))
    assert adjusted_rand(*contingency(first.astype(np.uint32), first.astype(np.uint32))) == 1.0
