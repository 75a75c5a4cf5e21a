"""The page itself: what it says, shows and leaves out, and how large it may grow."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser

import numpy as np
import pytest

from spoco_blocks.errors import VolumeError
from spoco_blocks.grid import Box
from spoco_blocks.kernels.contingency import contingency
from spoco_blocks.kernels.scores import scores
from spoco_blocks.stages.report import ObjectTable, Picture, ReportContent, StageTime, write_report
from spoco_blocks.stages.report.content import StageCost
from spoco_blocks.stages.report.images import embedding_rgb, label_colours, truth_colours
from spoco_blocks.stages.report.selection import READ_VOXELS, SHOWN_VOXELS, Subject, choose
from spoco_blocks.stages.report.wording import SCORES, duration, number

FEW_MB = 6_000_000


class Page(HTMLParser):
    """Collects what a browser would load, and the text."""

    def __init__(self, html):
        super().__init__()
        self.loads, self.text, self.tags, self._skip = [], [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._skip = tag in ("script", "style")
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

    def handle_endtag(self, tag):
        self._skip = False

    def handle_data(self, data):
        if not self._skip:
            self.text.append(data)


def balls(shape, seed=0):
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    labels = np.zeros(shape, np.uint32)
    for i in range(1, 9):
        labels[((grid - rng.uniform(0, shape)) ** 2).sum(-1) < 30] = i
    return labels


def table(segments, size):
    ids = np.unique(segments)[1:]
    where = [np.argwhere(segments == i) for i in ids]
    box = np.array([[*w.min(0), *(w.max(0) + 1)] for w in where])
    return ObjectTable(
        id=ids,
        voxels=np.array([len(w) for w in where]),
        box=box,
        centroid_nm=np.array([(w.mean(0) + 0.5) * size for w in where]),
        touches_border=(box[:, :3] == 0).any(1),
    )


def content(shape=(12, 40, 48), **changes):
    truth = balls(shape)
    segments = np.where(truth == 3, 0, truth)
    size = (300.0, 100.0, 100.0)
    rng = np.random.default_rng(1)
    made = ReportContent(
        segmentation="cells <1>",
        volume="stack",
        model="net",
        shape=shape,
        voxel_size_nm=size,
        picture=Picture(
            box=Box.of_shape(shape),
            step=(1, 1, 1),
            raw=rng.random(shape),
            segments=segments,
            truth=truth,
            embedding_rgb=embedding_rgb(rng.normal(size=(8, *shape)).astype(np.float16)),
            foreground=(truth > 0).astype(np.float32),
        ),
        scores=asdict(scores(*contingency(truth, segments))),
        curves=[
            (i, {"pull": 1 / (i + 1), "push": 0.5, "validation_pull": 0.3 if i % 10 == 0 else np.nan})
            for i in range(50)
        ],
        objects=table(segments, size),
        stages=[StageTime("embed", 12.5, (12.5, 11.0)), StageTime("stitch", 0.5)],
        costs=[StageCost("embed", (8, 8), (20.0, 23.5), (4_000_000, None), (2.0, 1.64), (3800, 637))],
        settings={"Predict embeddings": {"raw": {"uri": "data/raw.zarr", "level": 0, "axes": None}}},
        versions={"numpy": "2.0"},
        provenance={"embed": "0123abcd"},
        notes=["Look & see </script><b>"],
        finished="2025-01-02T03:04:05Z",
    )
    return replace(made, **changes)


def written(tmp_path, report):
    path = tmp_path / "report.html"
    write_report(report, path)
    html = path.read_text(encoding="utf-8")
    assert len(html) < FEW_MB
    return html, Page(html)


def test_needs_nothing_from_anywhere(tmp_path):
    html, page = written(tmp_path, content())
    assert page.loads
    assert all(load.startswith(("data:", "#")) for load in page.loads)
    assert not re.search(r"https?://|@import|@font-face|url\(", html)
    assert "link" not in page.tags or page.tags.count("link") == 1
    assert "nan" not in " ".join(page.text).lower().split()


def test_says_everything(tmp_path):
    report = content()
    _, page = written(tmp_path, report)
    text = " ".join(" ".join(page.text).split())
    for words in (
        "cells <1>",
        "AP50",
        "SBD",
        "Objects",
        "Median size",
        "µm³",
        "Time",
        "12 s",
        "Look & see </script><b>",
    ):
        assert words in text
    for score in SCORES:
        assert score.name in text
        assert score.text in text
    for words in ("Planned and used", "20 s", "24 s", "4 MB", "n/a", "1.64", "3.98 GB", "668 MB"):
        assert words in text
    for words in ("Predict embeddings", "data/raw.zarr", "numpy", "0123abcd", "Pull", "Push", "longest of 2 shards"):
        assert words in text
    for i in report.objects.id:
        assert str(i) in text


def test_shows_three_directions_and_every_layer(tmp_path):
    html, page = written(tmp_path, content())
    assert re.findall(r'data-plane="(\w+)"', html) == ["xy", "yz", "xz"]
    assert page.tags.count("img") == 3
    assert set(re.findall(r'name="base" value="(\w+)"', html)) == {"raw", "foreground", "embeddings"}
    assert set(re.findall(r'name="over" value="(\w+)"', html)) == {"segments", "truth", "both", "none"}
    data = viewer_data(html)
    assert data["shape"] == [12, 40, 48]
    assert data["pixel"] == [300, 100, 100]


def viewer_data(html):
    return json.loads(re.search(r'id="viewer-data">(.*?)</script>', html, re.S).group(1))


def test_without_truth_scores_are_left_out_and_it_says_why(tmp_path):
    report = content()
    html, page = written(tmp_path, replace(report, scores=None, picture=replace(report.picture, truth=None)))
    text = " ".join(page.text)
    assert "no truth to compare with" in text
    assert "AP50" not in text
    assert 'value="truth"' not in html
    assert "Covered" in text


@pytest.mark.parametrize("images", [False, True])
def test_flat_volumes_show_only_xy(tmp_path, images):
    shape = (6 if images else 1, 40, 48)
    html, page = written(tmp_path, content(shape, independent_images=images))
    assert re.findall(r'data-plane="(\w+)"', html) == ["xy"]
    assert ('aria-label="Position of the xy image"' in html) == images
    assert "µm²" in " ".join(page.text)
    assert "µm³" not in " ".join(page.text)


def test_an_empty_result_is_a_page_too(tmp_path):
    report = content()
    empty = Picture(report.picture.box, (1, 1, 1), report.picture.raw, np.zeros(report.shape, np.uint32))
    bare = ReportContent("none", "v", "m", report.shape, picture=empty)
    assert "No objects" in " ".join(written(tmp_path, bare)[1].text)
    written(tmp_path, replace(bare, picture=None))


def test_only_a_region_that_leaves_something_out_is_framed(tmp_path):
    report = content()
    half = Box((0, 0, 0), (12, 40, 24))
    assert viewer_data(written(tmp_path, replace(report, scored=half))[0])["scored"] == [[0, 0, 0], [12, 40, 24]]
    assert viewer_data(written(tmp_path, replace(report, scored=Box.of_shape(report.shape)))[0])["scored"] is None


def test_the_largest_picture_stays_a_few_mb(tmp_path):
    shape = (32, 256, 256)
    rng = np.random.default_rng(0)
    noise = rng.random(shape)
    labels = np.kron(np.arange(1, 257).reshape(4, 8, 8), np.ones((8, 32, 32), int))
    rgb = np.repeat(labels[None], 3, 0).astype(np.uint8)
    picture = Picture(Box.of_shape(shape), (1, 1, 1), noise, labels, labels, rgb, (noise > 0.1).astype(float))
    assert noise.size == SHOWN_VOXELS
    written(tmp_path, content(shape, picture=picture))


def test_layers_must_have_one_shape():
    with pytest.raises(VolumeError, match="truth"):
        Picture(Box.of_shape((2, 2, 2)), (1, 1, 1), np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), np.zeros((2, 2, 3)))


def test_neighbouring_ids_look_different_and_always_the_same():
    colours = label_colours(np.arange(1, 200)).astype(int)
    for apart in (1, 2, 3):
        assert (np.abs(colours[apart:] - colours[:-apart]).sum(1) > 40).all()
    np.testing.assert_array_equal(label_colours(np.array([57]))[0], colours[56])


def test_truth_takes_the_colour_of_its_best_segment_once():
    truth = np.array([1, 1, 1, 2, 2, 0])
    segments = np.array([7, 7, 7, 7, 0, 9])
    colours = truth_colours(truth, segments, np.array([1, 2]))
    np.testing.assert_array_equal(colours[0], label_colours(np.array([7]))[0])
    assert (colours[1] != colours[0]).any()


def subject(shape, extent, size=(1.0, 1.0, 1.0), images=False):
    return Subject(shape, size, images, extent, tuple(s // 2 for s in shape))


@pytest.mark.parametrize(
    ("shape", "extent", "size", "images"),
    [
        ((160, 160, 160), (30.0, 30.0, 30.0), (1.0, 1.0, 1.0), False),
        ((20, 1024, 1024), (2.0, 70.0, 70.0), (50.0, 4.6, 4.6), False),
        ((10_000, 10_000, 10_000), (60.0, 60.0, 60.0), (1.0, 1.0, 1.0), False),
        ((4000, 30_000, 30_000), (300.0, 300.0, 300.0), (1.0, 1.0, 1.0), False),
        ((1, 20_000, 30_000), (1.0, 40.0, 40.0), (1.0, 1.0, 1.0), False),
        ((200, 520, 696), (1.0, 30.0, 30.0), (1.0, 1.0, 1.0), True),
        ((50, 6000, 6000), (1.0, 30.0, 30.0), (1.0, 1.0, 1.0), True),
        ((1, 1, 1), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), False),
    ],
)
def test_what_is_read_and_shown_is_bounded(shape, extent, size, images):
    box, step = choose(subject(shape, extent, size, images))
    shown = [-(-n // s) for n, s in zip(box.shape, step, strict=True)]
    read = shown[0] * box.shape[1] * box.shape[2] if images else box.size
    assert Box.of_shape(shape).contains(box)
    assert np.prod(shown) <= SHOWN_VOXELS
    assert read <= READ_VOXELS
    assert min(shown) >= 1


def test_small_volumes_are_shown_whole():
    assert choose(subject((50, 100, 200), (9.0, 9.0, 9.0))) == (Box.of_shape((50, 100, 200)), (1, 1, 1))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234.5, "1,230"), (0.012345, "0.0123"), (75.6, "75.6"), (1e-9, "1.00e-09"), (10, "10")],
)
def test_numbers_read_well(value, text):
    assert number(value) == text


def test_times_read_well():
    assert [duration(s) for s in (0.42, 59.7, 312, 7261)] == ["0.4 s", "1 min 0 s", "5 min 12 s", "2 h 1 min"]


def test_validation_scores_are_explained_and_the_fine_print_stays_in_the_table(tmp_path):
    fine = {"pull": 1.0, "gradient_norm_down": 1.0, "lost": 1.0}
    curves = [(i, {**fine, "validation_mean_iou": 0.5 if i % 10 == 0 else np.nan}) for i in range(1, 50)]
    page, _ = written(tmp_path, content(curves=curves))
    assert "Mean IoU of annotated objects that training never saw" in page
    assert "Gradient norm down" not in page
    assert "<h3>Lost" not in page


@pytest.mark.parametrize("raw", [(), ("my data/raw.zarr",)])
def test_says_how_viewers_open_it(tmp_path, raw):
    _, page = written(tmp_path, content(stores=(*raw, "results/segmentation.zarr")))
    text = " ".join(" ".join(page.text).split())
    names = ["'my data/raw.zarr'"] * bool(raw) + ["results/segmentation.zarr"]
    assert " ".join(["napari --plugin napari-ome-zarr", *names, "and in neuroglancer, spoco-blocks view 'c"]) in text
    assert ("raw_pyramid: true" in text) == (not raw)
    assert "napari" not in written(tmp_path, content())[0]
