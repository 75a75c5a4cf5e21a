"""Independent images: which are learnt from, which are scored, and that each is scored for itself."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from image_folders import write_cityscapes, write_cvppp

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout, PseudoResults
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.errors import SettingsError, VolumeError
from spoco_blocks.grid import Box
from spoco_blocks.kernels.contingency import contingency
from spoco_blocks.kernels.scores import scores
from spoco_blocks.learn.intensity import Normalisation
from spoco_blocks.learn.places import read_place
from spoco_blocks.settings import jobs, parse_settings
from spoco_blocks.settings.images import Images
from spoco_blocks.settings.reading import load_settings
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.check import check_sources
from spoco_blocks.stages.evaluate import in_words, run_evaluate
from spoco_blocks.stages.labels import run_labels
from spoco_blocks.stages.output import PredictedOutput
from spoco_blocks.stages.parts import open_part
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.pseudo import with_pseudo_labels, without_pseudo_labels
from spoco_blocks.volumes import create_zarr, open_volume

EXAMPLES = Path(__file__).parents[2] / "config/examples"
SIZES = [(64, 80), (50, 80), (64, 70), (64, 80), (40, 40), (64, 80)]
SHAPE = (6, 64, 80)


@pytest.fixture(scope="module")
def plants(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plants")
    return folder, write_cvppp(folder / "A1", SIZES)


def configuration(folder, truth=(), **labels) -> dict:
    source = {"uri": "{folder}/A1/label"}
    padding = {"uri": "{folder}/A1/padding"}
    return {
        "folder": str(folder),
        "volumes": {
            "plants": {
                "raw": {"uri": "{folder}/A1/rgb"},
                "voxel_size_nm": [1, 1, 1],
                "labels": {**source, "ignore": padding, **labels},
                "truth": {**source, "ignore": padding, **dict(truth)},
            }
        },
        "models": {"plants": {"volumes": ["plants"]}},
        "segmentations": {"plants": {"volume": "plants", "model": "plants"}},
    }


def indexed(tree, folder) -> tuple[Manifest, dict]:
    results = Layout(folder).volume("plants")
    manifest = run_labels(jobs.labels_job(parse_settings(tree), "plants"), results, Execution())
    return manifest, pq.read_table(results.objects).to_pydict()


@pytest.mark.parametrize(
    ("images", "expected"),
    [({"step": 2}, [0, 2, 4]), ({"start": 1, "step": 2}, [1, 3, 5]), ({"stop": 2}, [0, 1]), ({"start": 4}, [4, 5])],
)
def test_only_chosen_images_are_learnt_from(plants, tmp_path, images, expected):
    folder, pictures = plants
    tree = configuration(folder, images=images, background_fraction=0.5)
    manifest, table = indexed(tree, tmp_path)
    assert sorted(set(table["z0"])) == expected
    assert len(table["id"]) == sum(len(np.unique(pictures[n][1])) - 1 for n in expected)
    job = jobs.labels_job(parse_settings(tree), "plants")
    part = open_part(job, manifest, Layout(tmp_path), (1.0, 1.0, 1.0))
    rng = np.random.default_rng(0)
    boxes = [part.volume.draw((1, 32, 32), centred, rng, part.training) for centred in (0, 0.5, 1) for _ in range(40)]
    assert {box.start[0] for box in boxes} == set(expected)
    assert all(box.shape == (1, 32, 32) and part.training.contains(box) for box in boxes)


@pytest.mark.parametrize("voxels", [64 * 80, 10**6])
def test_judged_by_chosen_images_only(plants, tmp_path, voxels):
    folder, _ = plants
    tree = configuration(folder, images={"start": 1, "step": 2})
    manifest, _ = indexed(tree, tmp_path)
    part = open_part(jobs.labels_job(parse_settings(tree), "plants"), manifest, Layout(tmp_path), (1.0, 1.0, 1.0))
    place = read_place(part, voxels, (1, 4, 4))
    assert place.planar
    taken = [1, 3, 5] if voxels > 3 * 64 * 80 else [1]
    whole = [part.volume.read(Box((n, 0, 0), (n + 1, 64, 80))) for n in taken]
    np.testing.assert_array_equal(place.raw, np.concatenate([raw for raw, _ in whole], 1))
    np.testing.assert_array_equal(place.labels, np.concatenate([known for _, known in whole]))


def test_pseudo_objects_of_other_images_are_not_learnt_from(plants, tmp_path):
    folder, _ = plants
    tree = configuration(folder, images={"step": 2})
    manifest, _ = indexed(tree, tmp_path)
    part = open_part(jobs.labels_job(parse_settings(tree), "plants"), manifest, Layout(tmp_path), (1.0, 1.0, 1.0))
    pseudo = PseudoResults(tmp_path / "pseudo")
    pseudo.root.mkdir()
    for uri in (pseudo.labels, pseudo.background):
        create_zarr(str(uri), shape=SHAPE, dtype="uint32", chunk_shape=(1, 64, 80), voxel_size_nm=(1, 1, 1))
    found = {"id": [1, 1, 2, 3], "z": [2, 3, 3, 4], "y": [9, 9, 9, 9], "x": [8, 8, 8, 8]}
    pq.write_table(pa.table(found), pseudo.anchors)
    Manifest("agree", "a", result={"part": [[0, 0, 0], list(SHAPE)]}).write(pseudo.manifest)
    taught = with_pseudo_labels(part, pseudo, shell=False)
    assert {n: v.tolist() for n, v in taught.volume.anchors.items() if n < 0} == {-1: [[2, 9, 8]], -3: [[4, 9, 8]]}
    assert without_pseudo_labels(taught).volume.anchors.keys() == part.volume.anchors.keys()
    assert without_pseudo_labels(taught).volume.supervision.pseudo is None


def test_channels_are_normalised_each_for_itself_and_padding_has_no_loss(plants, tmp_path):
    folder, pictures = plants
    tree = configuration(folder)
    manifest, _ = indexed(tree, tmp_path)
    assert manifest.result["channels"] == 3
    red, green, _ = manifest.result["intensity_high"]
    assert green > red + 50
    part = open_part(jobs.labels_job(parse_settings(tree), "plants"), manifest, Layout(tmp_path), (1.0, 1.0, 1.0))
    raw, known = part.volume.read(Box((1, 0, 0), (2, 64, 80)))
    assert (known[0, 50:] == -2).all()
    assert (known[0, :50] != -2).all()
    low, high = (np.array(manifest.result[f"intensity_{end}"])[:, None, None] for end in ("low", "high"))
    expected = (np.moveaxis(pictures[1][0], -1, 0) - low) / (high - low) * 4 - 1
    np.testing.assert_allclose(raw[:, 0, :50], expected.clip(-3, 8), atol=1e-4)


def test_objects_are_drawn_from_the_set_or_from_each_image(plants, tmp_path):
    folder, pictures = plants
    numbers = [len(np.unique(labels)) - 1 for _, labels in pictures]

    def kept(per: str, fraction: float) -> list[int]:
        _, table = indexed(configuration(folder, keep_fraction=fraction, keep_per=per), tmp_path / f"{per}{fraction}")
        return np.bincount(np.array(table["z0"])[table["annotated"]], minlength=len(SIZES)).tolist()

    assert kept("image", 0.01) == [1] * len(SIZES)
    assert kept("image", 0.4) == [max(1, round(0.4 * n)) for n in numbers]
    assert sum(kept("set", 0.01)) == 1
    assert sum(kept("set", 0.4)) == round(0.4 * sum(numbers))


def test_choosing_images_of_a_volume_or_none_is_refused(plants, tmp_path):
    folder, _ = plants
    for images in ({"start": 6}, {"start": 3, "stop": 3}):
        with pytest.raises(VolumeError, match=r"leaves none of the 6 images"):
            indexed(configuration(folder, images=images), tmp_path)
    with pytest.raises(VolumeError, match="leaves none"):
        check_sources(jobs.check_job(parse_settings(configuration(folder, {"images": {"start": 9}}))))
    uri = str(tmp_path / "volume.zarr")
    create_zarr(uri, shape=(4, 8, 8), dtype="uint8", chunk_shape=(4, 8, 8), voxel_size_nm=(1, 1, 1))
    for labels, message in (({"images": {"step": 2}}, "`images` chooses among"), ({"keep_per": "image"}, "keep_per")):
        tree = configuration(folder)
        tree["volumes"]["plants"] = {"raw": {"uri": uri}, "labels": {"uri": uri, **labels}}
        with pytest.raises(VolumeError, match=message):
            check_sources(jobs.check_job(parse_settings(tree)))


def test_images_count_like_slices():
    assert list(Images(start=1, step=2).of(6)) == [1, 3, 5]
    assert list(Images(stop=9).of(3)) == [0, 1, 2]
    assert list(Images(start=7).of(3)) == []


def segmented(folder: Path, segments: np.ndarray) -> Layout:
    """A results folder in which the images were segmented."""
    layout = Layout(folder)
    results = layout.segmentation("plants")
    create_zarr(str(results.segments), shape=SHAPE, dtype="uint32", chunk_shape=(1, 64, 80)).write(
        Box.of_shape(SHAPE), segments.astype(np.uint32)
    )
    predicted = PredictedOutput(
        raw=Source(uri="r"), mask=None, origin=(0, 0, 0), shape=SHAPE, normalisation=Normalisation((0.0,), (1.0,)),
        checkpoint="", weights="g", identity="", precision="float32", patch_voxels=None, batch=1, scale=None,
        channels=4, offsets=0,
    )  # fmt: skip
    plan = Plan(
        origin=(0, 0, 0),
        shape=SHAPE, block_shape=(1, 32, 80), network_halo=(0, 8, 8), stride=(1, 4, 4), cluster_halo=(0, 8, 8),
        region_shape=(1, 64, 64), voxel_size_nm=(1, 1, 1), coordinate_scale=None, planar=True,
        offsets=(), neighbours=0, clustering_kind="modes", foreground_threshold=0.3, smallest_voxels=60,
        object_distance=1.0, step=(1, 2, 2),
        predicted=predicted, stream=False, levels=1, factors=(),
    )  # fmt: skip
    Manifest("plan", "p", result={"plan": plan.describe()}).write(results.manifest("plan"))
    Manifest("relabel", "r").write(results.manifest("relabel", 0))
    return layout


def evaluated(tree: dict, layout: Layout) -> dict:
    run_evaluate(jobs.segmentation_job(parse_settings(tree), "evaluate", "plants"), layout, Execution())
    return json.loads(layout.segmentation("plants").scores.read_text())


@pytest.mark.parametrize("images", [None, {"start": 1, "step": 2}])
def test_every_image_is_scored_for_itself_and_padding_not_at_all(plants, tmp_path, images):
    folder, pictures = plants
    rng = np.random.default_rng(0)
    segments = np.zeros(SHAPE, np.int64)
    expected = []
    for n, (_, labels) in enumerate(pictures):
        found = np.where(labels > n % 3, labels.astype(np.int64) + 100 * n, 0)  # 0, 1 or 2 leaves are missed
        found = np.where(rng.random(labels.shape) < 0.2, 0, found)
        found[:3, :9] = 100 * n + 50  # and one is invented
        segments[n, : labels.shape[0], : labels.shape[1]] = found
        expected.append(scores(*contingency(labels, found)))
    segments[1, 55:, 10:40], segments[4, 50:, 50:] = 999, 998  # beyond what these images show
    chosen = range(6) if images is None else range(6)[1::2]
    found = evaluated(configuration(folder, {"images": images}), segmented(tmp_path, segments))
    assert found["n_truth"] == sum(expected[n].n_truth for n in chosen)
    assert found["n_segments"] == sum(expected[n].n_segments for n in chosen)
    means = found["per_image"]
    assert means.pop("images") == len(chosen)
    for name, value in means.items():
        assert value == pytest.approx(np.mean([getattr(expected[n], name) for n in chosen])), name
    assert means["dic"] == pytest.approx(np.mean([abs(1 - n % 3) for n in chosen]))
    assert found["dic"] == abs(sum(1 - n % 3 for n in chosen)) != means["dic"] * len(chosen)
    assert f"mean of {len(chosen)} images: SBD {means['sbd']:.3f}, |DiC| " in in_words(
        found | {"per_image": means | {"images": len(chosen)}}
    )


def test_without_the_mask_padding_is_scored(plants, tmp_path):
    folder, _ = plants
    segments = np.zeros(SHAPE, np.int64)
    segments[1, 55:, 10:40] = 999
    layout = segmented(tmp_path, segments)
    assert evaluated(configuration(folder), layout)["n_segments"] == 0
    assert evaluated(configuration(folder, {"ignore": None}), layout)["n_segments"] == 1


def test_folder_is_put_into_every_uri(plants):
    folder, _ = plants
    tree = configuration(folder)
    settings = parse_settings(tree)
    assert settings.volumes["plants"].labels.ignore.uri == f"{folder}/A1/padding"
    del tree["folder"]
    with pytest.raises(SettingsError, match=r"--config folder="):
        parse_settings(tree)


@pytest.mark.parametrize("name", ["cvppp", "cityscapes"])
def test_examples_fit_folders_of_that_layout(tmp_path, name):
    if name == "cvppp":
        write_cvppp(tmp_path / "A1", [(64, 80), *[(18, 18)] * 106])
    else:
        write_cityscapes(tmp_path, "train")
        write_cityscapes(tmp_path, "val")
    tree = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text()) | {"folder": str(tmp_path)}
    settings = parse_settings(tree)
    opened = check_sources(jobs.check_job(settings))
    assert all(volume.meta.channels == 3 for volume in opened.values())
    assert load_settings(EXAMPLES / f"{name}.yaml").segmentations.keys() == settings.segmentations.keys()


def test_images_with_channels_in_one_array(tmp_path):
    stack = np.random.default_rng(0).integers(0, 255, (3, 5, 16, 16), dtype=np.uint8)
    with h5py.File(tmp_path / "stack.h5", "w") as file:
        file["raw"] = stack
    volume = open_volume(tmp_path / "stack.h5/raw", axes="cnyx")
    assert (volume.meta.axes, volume.meta.channels, volume.meta.shape) == ("cnyx", 3, (5, 16, 16))
    assert volume.meta.independent_images
    box = Box((1, 2, 3), (4, 10, 16))
    np.testing.assert_array_equal(volume.read(box), stack[(slice(None), *box.slices)])
