"""A segmentation in neuroglancer: what it reads of each format, and that all of it is drawn where it lies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import unquote
from urllib.request import Request, urlopen

import numpy as np
import pytest
from meshes import segmented
from neuroglancer_browser import BARE, neuroglancer_browser
from phantoms import store

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.errors import ExecutorError, LedgerError
from spoco_blocks.grid import Box
from spoco_blocks.learn.intensity import Normalisation
from spoco_blocks.settings.optional_jobs import MeshJob, RawPyramidJob, SkeletonJob
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.mesh import run_mesh
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.raw_pyramid import run_raw_pyramid
from spoco_blocks.stages.skeleton import run_skeleton
from spoco_blocks.stages.view import FileServer, find_scene
from spoco_blocks.stages.view.server import byte_range
from spoco_blocks.volumes import create_ome_zarr, open_volume

SHAPE, SIZE_NM, BLOCKS, FACTORS = (24, 80, 150), (40.0, 20.0, 20.0), (12, 32, 128), ((1, 2, 2), (2, 2, 2))
VERSIONS = ("0.4", "0.5")


def crowd() -> np.ndarray:
    """Balls of different sizes in voxels of an uneven shape, none where another one would be in a mirror."""
    grid, labels = np.indices(SHAPE), np.zeros(SHAPE, np.uint32)
    balls = [((8, 20, 30), 160), ((14, 55, 40), 200), ((10, 30, 95), 260), ((15, 60, 125), 120), ((5, 68, 80), 100)]
    for number, (centre, radius_nm) in enumerate(balls, 1):
        squares = [((g - c) * s) ** 2 for g, c, s in zip(grid, centre, SIZE_NM, strict=True)]
        labels[sum(squares) < radius_nm**2] = number
    return labels


def results(folder: Path, version: str) -> tuple[Layout, np.ndarray, np.ndarray]:
    """A results folder with everything that can be shown; its labels and raw data."""
    labels = crowd()
    raw = (900 * (labels > 0) + np.random.default_rng(0).integers(0, 300, SHAPE)).astype(np.uint16)
    layout = segmented(folder, labels, BLOCKS, SIZE_NM, FACTORS, version=version)
    path = layout.segmentation("s").manifest("plan")
    plan = Plan.read(Manifest.read(path))
    source = Source(uri=store(folder / "raw.zarr", raw, SIZE_NM))
    predicted = replace(plan.predicted, raw=source, normalisation=Normalisation((100.0,), (1000.0,)))
    Manifest("plan", "p", result={"plan": replace(plan, predicted=predicted).describe()}).write(path)
    run_raw_pyramid(RawPyramidJob(segmentation="s", ome_zarr_version=version), layout, Execution())
    run_mesh(MeshJob(segmentation="s", meshes={"level": 0}), layout, Execution())
    run_skeleton(SkeletonJob(segmentation="s", skeletons={"level": 0}), layout, Execution())
    return layout, labels, raw


@pytest.fixture(scope="module")
def every(tmp_path_factory):
    return {version: results(tmp_path_factory.mktemp(f"ome-{version[-1]}"), version) for version in VERSIONS}


@pytest.fixture
def served():
    """Serve scenes in this process."""
    servers = []

    def start(scene) -> str:
        servers.append(FileServer(scene.folders))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1].address

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def neuroglancer():
    with neuroglancer_browser() as viewer:
        yield viewer


def only(state: dict, layer: str, **change) -> dict:
    """The state with one layer, seen from the front so that a pixel shows a voxel; whole numbers are their centres."""
    (chosen,) = (each for each in state["layers"] if each["name"] == layer)
    return (
        state
        | BARE
        | {"layers": [chosen | change], "layout": "xy", "crossSectionScale": 1, "position": [74.5, 39.5, 10]}
    )


def check_colours(drawn: np.ndarray, numbers: np.ndarray) -> None:
    """Each object has one colour, which nothing else has; the background is black."""
    found = [np.unique(drawn[numbers == number], axis=0) for number in np.unique(numbers)]
    assert [len(colours) for colours in found] == [1] * 4
    assert not found[0].any()
    assert len(np.unique(np.concatenate(found), axis=0)) == 4


@pytest.mark.parametrize("version", VERSIONS)
def test_neuroglancer_reads_the_voxels_and_where_they_lie(every, served, neuroglancer, version):
    layout, labels, raw = every[version]
    state = (scene := find_scene(layout, "s")).state(served(scene))
    segmentation = next(each for each in state["layers"] if each["name"] == "segmentation")
    # What it packs for drawing it does not give back; numbers of an image it does.
    as_image = {"type": "image", "name": "numbers", "source": segmentation["source"][0]}
    neuroglancer.show(state | {"layers": [state["layers"][0], as_image]})
    for layer, expected in (("raw", raw), ("numbers", labels)):
        info = neuroglancer.info(layer)
        assert list(info["dimensions"]) == ["z", "y", "x"]
        assert [size for size, _ in info["dimensions"].values()] == pytest.approx([nm * 1e-9 for nm in SIZE_NM])
        np.testing.assert_array_equal(neuroglancer.voxels(layer), expected)


@pytest.mark.parametrize("version", VERSIONS)
def test_neuroglancer_draws_every_segment_in_its_place(every, served, neuroglancer, version):
    layout, labels, _ = every[version]
    state = (scene := find_scene(layout, "s")).state(served(scene))
    plain = {"source": state["layers"][-1]["source"][0], "selectedAlpha": 1}
    shown = only(state, "segmentation", **plain)
    neuroglancer.show(shown)
    drawn = neuroglancer.picture(SHAPE[2], SHAPE[1])
    check_colours(drawn, labels[10])
    # Zoomed out, it draws the coarsest level: the last fine voxel of each coarse one, if that is where it should be.
    neuroglancer.show(shown | {"crossSectionScale": 4, "position": [75, 41, 11]})
    small = neuroglancer.picture(37, 20)
    coarsest = open_volume(layout.segmentation("s").segments, level=2).read(Box((5, 0, 0), (6, 20, 37)))[0]
    check_colours(small, coarsest)


def test_neuroglancer_draws_the_raw_data_between_black_and_white(every, served, neuroglancer):
    layout, labels, _ = every["0.5"]
    state = (scene := find_scene(layout, "s")).state(served(scene))
    neuroglancer.show(only(state, "raw"))
    drawn = neuroglancer.picture(SHAPE[2], SHAPE[1])[..., 0].astype(float)
    inside = labels[10] > 0
    assert drawn[inside].mean() > 200 > 60 > drawn[~inside].mean()


def test_every_channel_is_a_layer_with_its_own_black_and_white(tmp_path, served, neuroglancer):
    layout, raw = segmented(tmp_path, crowd(), BLOCKS, SIZE_NM), np.zeros((2, *SHAPE), np.uint16)
    raw[0, :, :, :70], raw[1, :, :, 100:] = 200, 5000
    results = layout.segmentation("s")
    plan = Plan.read(Manifest.read(results.manifest("plan")))
    shown = Normalisation((0.0, 0.0), (200.0, 10000.0))
    plan = replace(plan, predicted=replace(plan.predicted, normalisation=shown))
    Manifest("plan", "p", result={"plan": plan.describe()}).write(results.manifest("plan"))
    copied = Manifest("raw_pyramid", "r", inputs={"plan": "p"}, result={"uri": results.raw_pyramid})
    copied.write(results.manifest("raw_pyramid"))
    (image,) = create_ome_zarr(
        results.raw_pyramid, shape=SHAPE, dtype="uint16", channels=2, chunk_shape=BLOCKS, shard_shape=BLOCKS,
        voxel_size_nm=SIZE_NM, levels=1, factors=(), is_label=False, name="raw",
    )  # fmt: skip
    image.write(Box.of_shape(SHAPE), raw)
    state = (scene := find_scene(layout, "s")).state(served(scene))
    assert [layer.get("visible") for layer in state["layers"]] == [True, False, None]
    for channel, expected in ((0, [255, 0, 0]), (1, [0, 0, 127])):
        neuroglancer.show(only(state, f"raw {channel}", visible=True))
        drawn = neuroglancer.picture(SHAPE[2], SHAPE[1])[40, [30, 85, 130], 0]
        np.testing.assert_allclose(drawn, expected, atol=2)


def test_meshes_and_skeletons_lie_in_their_objects(every, served, neuroglancer):
    layout, labels, _ = every["0.5"]
    state = (scene := find_scene(layout, "s")).state(served(scene))
    zarr, meshes, skeletons = state["layers"][-1]["source"]
    silhouette, found = labels.any(axis=0), {}
    for kind, source in (("meshes", meshes), ("skeletons", skeletons)):
        only_shapes = [{"url": zarr, "subsources": {"default": False}, "enableDefaultSubsources": False}, source]
        shown = only(state, "segmentation", source=only_shapes, segments=["1", "2", "3", "4", "5"])
        front = {"layout": {"type": "3d", "orthographicProjection": True}, "projectionScale": SHAPE[1]}
        neuroglancer.show(shown | front)
        found[kind] = neuroglancer.picture(SHAPE[2], SHAPE[1]).any(axis=2)
    both = (found["meshes"] & silhouette).sum()
    assert both > 0.9 * (found["meshes"] | silhouette).sum()
    assert found["skeletons"].sum() > 20
    assert (found["skeletons"] & silhouette).sum() > 0.95 * found["skeletons"].sum()


def fetch(address: str, part: str | None = None) -> tuple[int, bytes, dict]:
    headers = {} if part is None else {"Range": part}
    with urlopen(Request(address, headers=headers), timeout=30) as answer:
        return answer.status, answer.read(), dict(answer.headers)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("bytes=2-4", (2, 5)), ("bytes=2-", (2, 10)), ("bytes=-3", (7, 10)), ("bytes=-30", (0, 10)),
        ("bytes=5-99", (5, 10)), ("bytes=10-", None), ("", (0, 10)), ("bytes=1-2,4-5", (0, 10)),
    ],
)  # fmt: skip
def test_parts_of_files(asked, found):
    assert byte_range(asked, 10) == found


def test_the_server_gives_parts_to_pages_of_any_origin_and_nothing_from_elsewhere(tmp_path):
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown" / "1:0").write_bytes(b"0123456789")
    (tmp_path / "shown" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("secret")
    server = FileServer({"meshes": tmp_path / "shown"})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    status, data, headers = fetch(f"{server.address}/meshes/1%3A0")
    assert (status, data, headers["Access-Control-Allow-Origin"]) == (200, b"0123456789", "*")
    status, data, headers = fetch(f"{server.address}/meshes/1:0", "bytes=-4")
    assert (status, data, headers["Content-Range"]) == (206, b"6789", "bytes 6-9/10")
    for path, code in (
        ("meshes/../secret", 404), ("meshes/%2e%2e/secret", 404), ("meshes/link", 404), ("meshes/", 404), ("", 404),
        ("other/1:0", 404),
    ):  # fmt: skip
        with pytest.raises(HTTPError) as error:
            fetch(f"{server.address}/{path}")
        assert error.value.code == code, path
    with pytest.raises(HTTPError) as error:
        fetch(f"{server.address}/meshes/1:0", "bytes=10-")
    assert (error.value.code, error.value.headers["Content-Range"]) == (416, "bytes */10")
    with pytest.raises(ExecutorError, match=f"port {server.server_port}.*choose another --port"):
        FileServer({}, server.server_port)
    server.shutdown()
    server.server_close()


def test_what_lies_elsewhere_is_not_served_and_what_is_not_there_not_named(tmp_path):
    layout = segmented(tmp_path, crowd(), BLOCKS, SIZE_NM)
    results = layout.segmentation("s")
    (results.place).write_text("s3://bucket/s\n")
    copied = Manifest("raw_pyramid", "r", inputs={"plan": "p"}, result={"uri": "https://somewhere/image.zarr"})
    copied.write(results.manifest("raw_pyramid"))
    scene = find_scene(layout, "s")
    assert scene.folders == {}
    raw, segmentation = scene.state("http://127.0.0.1:1")["layers"]
    assert raw["source"] == "zarr://https://somewhere/image.zarr"
    assert segmentation["source"] == ["zarr://s3://bucket/s/segmentation.zarr"]


def test_what_is_not_finished_is_said(tmp_path):
    layout = segmented(tmp_path, crowd(), BLOCKS, SIZE_NM)
    with pytest.raises(LedgerError, match=r'"cells".*there are \[\'s\'\].*Name one of these'):
        find_scene(layout, "cells")


def test_the_command_gives_a_link_and_serves_until_it_is_interrupted(every, program_environment):
    layout, _, _ = every["0.5"]
    command = [sys.executable, "-m", "spoco_blocks.cli", "view", "s", "--results", str(layout.root)]
    running = subprocess.Popen(command, env=program_environment, stdout=subprocess.PIPE, text=True)
    link = next(line.strip() for line in running.stdout if "#!" in line)
    state = json.loads(unquote(link.partition("#!")[2]))
    address = state["layers"][0]["source"].removeprefix("zarr://")
    assert state == find_scene(layout, "s").state(address.removesuffix("/raw"))
    assert fetch(f"{address}/zarr.json")[0] == 200
    running.send_signal(signal.SIGINT)
    assert running.wait(30) == 0
