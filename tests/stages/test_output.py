"""What the network says: stored or streamed, rounded to float16 or int8, and left out where there is nothing."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from oracles import adjusted_rand_index
from phantoms import balls, store
from pipeline import SERIAL, Trained

from spoco_blocks.clustering import Consistency, Context
from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.ledger import Records
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.errors import VolumeError
from spoco_blocks.grid import Box
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.mask import open_mask
from spoco_blocks.stages.output import constant, int8_scale, quantised
from spoco_blocks.stages.plan import Plan
from spoco_blocks.volumes import is_stored, open_volume

SHAPE = (40, 48, 64)


def whole(path):
    volume = open_volume(path)
    return volume.read(Box.of_shape(volume.meta.shape))


@pytest.fixture(scope="module")
def stored(trained):
    return trained.segment("stored")


@pytest.mark.parametrize("kind", ["modes", "mutex"])
def test_streaming_gives_the_same_segmentation_and_stores_no_embeddings(trained, kind):
    clustering = {"clustering": {"kind": kind}}
    kept = trained.segment(f"{kind}-kept", **clustering)
    streamed = trained.segment(f"{kind}-streamed", **clustering, embeddings="stream")
    # Prediction of another box differs in the sixth digit: a voxel on a border may fall to the other side.
    assert adjusted_rand_index(whole(kept.segments), whole(streamed.segments)) > 0.999
    assert is_stored(kept.embeddings)
    for path in (streamed.embeddings, streamed.foreground, streamed.affinities):
        assert not is_stored(path)


@pytest.mark.parametrize("embedding_type", ["float16", "int8"])
def test_consistency_is_given_what_both_networks_say(trained, embedding_type):
    one_block = {"blocks": {"shape_voxels": SHAPE}, "embedding_type": embedding_type}
    method = {"clustering": {"kind": "consistency", "min_agreement": 0.4}}
    found = trained.segment(f"consistency-{embedding_type}", **one_block, **method)
    of_f = trained.segment("one-block-of-f", blocks=one_block["blocks"], weights="f")
    plan = Plan.read(Manifest.read(found.manifest("plan")))
    if embedding_type == "float16":
        np.testing.assert_array_equal(whole(found.other_embeddings), whole(of_f.embeddings))
    else:
        scale = np.array(plan.predicted.scale)[:, None, None, None]
        assert (np.abs(whole(found.other_embeddings) * scale - whole(of_f.embeddings)) < scale).mean() > 0.999
    source = plan.embedded(found, trained.tree["segmentations"]["balls"]["foreground_threshold"])
    output = source.output.read(Box.of_shape(SHAPE))
    embeddings, foreground = source.understand(output)
    expected = Consistency(min_agreement=0.4)(embeddings, foreground, Context(other=source.placed(output.other)))
    assert expected.max() > 1
    np.testing.assert_array_equal(whole(found.fragments), expected)
    streamed = trained.segment(f"consistency-streamed-{embedding_type}", **one_block, **method, embeddings="stream")
    assert adjusted_rand_index(whole(found.segments), whole(streamed.segments)) > 0.99
    assert not is_stored(streamed.other_embeddings)


def test_what_f_says_is_stored_only_where_it_is_asked_for(trained):
    first = trained.segment("asked", clustering={"kind": "consistency", "min_agreement": 0.0})
    assert is_stored(first.other_embeddings)
    assert not np.array_equal(whole(first.other_embeddings), whole(first.embeddings))
    second = trained.segment("asked")
    assert not is_stored(second.other_embeddings)


def test_streaming_is_the_same_for_every_executor(trained):
    one = trained.segment("streamed-serial", embeddings="stream")
    two = trained.segment("streamed-dask", Execution("dask", 2), 2, embeddings="stream")
    np.testing.assert_array_equal(whole(one.segments), whole(two.segments))


def test_int8_embeddings_give_nearly_the_same(trained, stored):
    rounded = trained.segment("int8", embedding_type="int8")
    assert open_volume(rounded.embeddings).meta.dtype == np.int8
    plan = Manifest.read(rounded.manifest("plan")).result["plan"]
    scale = np.array(plan["predicted"]["scale"])[:, None, None, None]
    error = np.abs(whole(rounded.embeddings) * scale - whole(stored.embeddings).astype(float))
    assert (error <= 0.5 * scale + 2e-3 * np.abs(whole(stored.embeddings)) + 2e-3).mean() > 0.999
    assert adjusted_rand_index(whole(rounded.segments), whole(stored.segments)) > 0.99


def test_rounding_to_int8_clips_what_is_larger_than_the_samples():
    scale = int8_scale(np.array([127.0, 0.0]))
    assert scale[0] == pytest.approx(1.5)
    values = np.array([[-1e6, -1.6, 0.2, 190.0, 191.0]], np.float32).reshape(1, 1, 1, 5)
    assert quantised(values, scale[:1]).ravel().tolist() == [-127, -1, 0, 127, 127]


def masked(trained: Trained, folder, mask: np.ndarray, name: str, **section):
    tree = copy.deepcopy(trained.tree)
    tree["volumes"]["balls"]["mask"] = {"uri": store(folder / f"{name}-mask.zarr", mask)}
    return Trained(trained.layout, tree).segment(name, **section)


@pytest.mark.parametrize("embeddings", ["keep", "stream"])
@pytest.mark.parametrize("factor", [1, 4])
def test_nothing_is_segmented_outside_of_the_mask(trained, stored, tmp_path, factor, embeddings):
    mask = np.zeros([-(-s // factor) for s in SHAPE], np.uint8)
    mask[:, :, : 44 // factor] = 1
    results = masked(trained, tmp_path, mask, f"masked{factor}{embeddings}", embeddings=embeddings)
    segments, expected = whole(results.segments), whole(stored.segments)
    assert not segments[:, :, 44:].any()
    assert adjusted_rand_index(segments[:, :, :40], expected[:, :, :40]) > 0.98


def test_blocks_without_a_voxel_to_segment_are_skipped_and_counted(trained, tmp_path):
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, :, :32] = 1
    results = masked(trained, tmp_path, mask, "skipping")
    manifest = Manifest.read(results.manifest("embed", 0)).result
    assert (manifest["computed"], manifest["skipped"]) == (8, 4)
    records = Records(results.ledger("embed"), manifest["records"], 8)
    assert [bool(records[block]["skipped"]) for block in range(8)] == [False, True] * 4
    written = [path for path in Path(results.embeddings).rglob("*") if path.is_file() and path.name != "zarr.json"]
    assert len(written) == 4


def test_a_narrower_mask_empties_what_was_written_before(trained, tmp_path):
    mask = np.ones(SHAPE, np.uint8)
    masked(trained, tmp_path, mask, "narrowed")
    mask[:, :24] = 0
    tree = copy.deepcopy(trained.tree)
    tree["volumes"]["balls"]["mask"] = {"uri": store(tmp_path / "second-mask.zarr", mask)}
    results = Trained(trained.layout, tree).segment("narrowed")
    assert not whole(results.foreground)[:, :24].any()
    assert not whole(results.embeddings)[:, :, :24].any()
    assert not whole(results.segments)[:, :24].any()


def test_blocks_of_constant_raw_data_are_skipped(trained, tmp_path):
    raw, _ = balls()
    raw[:, :, 20:] = 7
    tree = copy.deepcopy(trained.tree)
    tree["volumes"]["balls"]["raw"] = {"uri": store(tmp_path / "raw.zarr", raw)}
    # The halo of the network must be constant as well.
    results = Trained(trained.layout, tree).segment("constant", blocks={"shape_voxels": [40, 48, 8]})
    records = Records(results.ledger("embed"), Manifest.read(results.manifest("embed", 0)).result["records"], 8)
    skipped = [bool(records[block]["skipped"]) for block in range(8)]
    assert skipped[:3] == [False] * 3
    assert skipped[-1]
    assert not whole(results.segments)[:, :, 32:].any()


def test_a_threshold_of_0_means_that_everything_belongs_to_objects_but_what_the_mask_leaves_out(trained, tmp_path):
    mask = np.ones(SHAPE, np.uint8)
    mask[:20] = 0
    results = masked(trained, tmp_path, mask, "everything", foreground_threshold=0.0, stitching={"min_voxels": 0})
    segments = whole(results.segments)
    assert not segments[:20].any()
    assert (segments[20:] > 0).mean() > 0.95


def test_constant_is_judged_channel_by_channel():
    raw = np.zeros((2, 3, 4, 5))
    raw[1] = 9
    assert constant(raw)
    assert constant(raw[0])
    raw[1, 2, 3, 4] = 8
    assert not constant(raw)


def test_a_mask_that_does_not_cover_the_raw_data_is_refused(tmp_path):
    raw = open_volume(store(tmp_path / "raw.zarr", np.zeros((40, 48, 64), np.uint8)))
    for shape in [(40, 48, 60), (41, 48, 64), (9, 12, 16)]:
        uri = store(tmp_path / f"mask{shape}.zarr", np.zeros(shape, np.uint8))
        with pytest.raises(VolumeError, match=r"expected one array of that shape, or of a shape a whole number"):
            open_mask(Source(uri=uri), raw)
    uri = store(tmp_path / "coarse.zarr", np.zeros((14, 16, 22), np.uint8))
    assert open_mask(Source(uri=uri), raw).factor == (3, 3, 3)


def test_a_coarse_mask_is_read_as_if_it_were_fine(tmp_path):
    raw = open_volume(store(tmp_path / "raw.zarr", np.zeros((10, 11, 12), np.uint8)))
    coarse = np.random.default_rng(0).random((4, 4, 4)) < 0.5
    mask = open_mask(Source(uri=store(tmp_path / "mask.zarr", coarse.astype(np.uint8))), raw)
    fine = coarse.repeat(3, 0).repeat(3, 1).repeat(3, 2)[:10, :11, :12]
    for start, stop in [((0, 0, 0), (10, 11, 12)), ((1, 2, 5), (2, 9, 7)), ((3, 6, 9), (6, 9, 12))]:
        box = Box(start, stop)
        np.testing.assert_array_equal(mask.read(box), fine[box.slices])


def test_scores_of_a_streamed_segmentation_are_written(trained):
    results = trained.segment("scored", SERIAL, embeddings="stream")
    assert json.loads(results.scores.read_text())["ap50"] > 0.8
