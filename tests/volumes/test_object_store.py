"""Volumes on S3 and on web servers: what is read and written, what is asked again, and what is said in the end."""

from __future__ import annotations

import functools
import http.server
import multiprocessing
import os
import subprocess
import sys
import threading

import boto3
import numpy as np
import pytest
from s3_server import forget_clients

from spoco_blocks.errors import SettingsError, StoreError, VolumeError, VolumeNotFoundError
from spoco_blocks.grid import Box
from spoco_blocks.settings import parse_settings
from spoco_blocks.volumes import create_ome_zarr, create_zarr, is_stored, open_volume, remove_tree, stored_bytes

SHAPE = (6, 20, 24)
WHOLE = Box.of_shape(SHAPE)
# Parts of several shards, so that parts of objects are asked for.
PART = Box((2, 5, 7), (6, 18, 20))
CUT = PART.slices
FAULTS = ["SlowDown", "InternalError", "dropped", "lost", "cut", 0.05]


@pytest.fixture(scope="module")
def bucket(s3):
    return s3.new_bucket("volumes")


@pytest.fixture(scope="module")
def voxels():
    return np.random.default_rng(0).integers(0, 2**16, SHAPE, np.uint16)


def create(uri, voxels):
    volume = create_zarr(uri, shape=SHAPE, dtype="uint16", chunk_shape=(3, 5, 6), shard_shape=(6, 10, 12))
    volume.write(WHOLE, voxels)
    return volume


@pytest.fixture(scope="module")
def stored(bucket, voxels):
    return create(f"{bucket}/stored.zarr", voxels)


@pytest.mark.parametrize(("version", "shards"), [("0.4", None), ("0.5", (6, 10, 12))])
def test_what_is_written_is_what_a_copy_holds(bucket, voxels, tmp_path, version, shards):
    uri = f"{bucket}/image-{version}.zarr"
    levels = create_ome_zarr(
        uri, shape=SHAPE, dtype="uint16", chunk_shape=(3, 5, 6), shard_shape=shards, voxel_size_nm=(9, 4, 4), levels=2,
        factors=[(1, 2, 2)], is_label=False, name="image", version=version,
    )  # fmt: skip
    levels[0].write(WHOLE, voxels)
    levels[1].write(Box((0, 0, 0), (6, 10, 12)), voxels[:, :10, :12])
    objects = boto3.resource("s3").Bucket("volumes").objects.filter(Prefix=f"image-{version}.zarr/")
    for found in objects:
        path = tmp_path / found.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(found.get()["Body"].read())
    assert stored_bytes(uri) == stored_bytes(str(tmp_path)) == sum(found.size for found in objects)
    for level in range(2):
        remote, copy = open_volume(uri, level=level), open_volume(tmp_path / f"image-{version}.zarr", level=level)
        assert remote.meta == copy.meta
        everything = Box.of_shape(copy.meta.shape)
        np.testing.assert_array_equal(remote.read(everything), copy.read(everything))
    np.testing.assert_array_equal(copy.read(Box((0, 0, 0), (6, 10, 12))), voxels[:, :10, :12])
    remove_tree(uri)
    remove_tree(uri)
    assert not is_stored(uri)
    assert not stored_bytes(uri)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_fails_once_is_asked_again(s3, stored, voxels, fault):
    other = voxels[::-1].copy()
    with s3.failing(lambda method, path, before: fault if "/c/" in path and not before else None):
        stored.write(WHOLE, other)
        np.testing.assert_array_equal(stored.read(PART), other[CUT])
    assert s3.faults >= 4
    stored.write(WHOLE, voxels)
    np.testing.assert_array_equal(open_volume(stored.uri).read(WHOLE), voxels)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("SlowDown", "however often it was asked.*reduce your request rate.*AWS_MAX_ATTEMPTS"),
        ("InternalError", "however often it was asked.*internal error"),
        ("cut", "however often it was asked"),
        ("AccessDenied", "access was refused.*AWS_PROFILE"),
    ],
)
def test_what_always_fails_says_what_to_do(s3, impatient, stored, fault, said):
    volume = open_volume(stored.uri)
    fails, message = lambda method, path, _: fault if path.endswith("/c/0/0/0") else None, f"^{stored.uri}: .*{said}"
    with s3.failing(fails), pytest.raises(StoreError, match=message) as error:
        volume.read(Box((0, 0, 0), (2, 2, 2)))
    assert s3.secret not in str(error.value)


def test_what_cannot_be_read_is_not_taken_for_absent(s3, impatient, stored):
    with s3.failing(lambda *_: "AccessDenied"), pytest.raises(StoreError, match="refused"):
        open_volume(stored.uri)


def test_what_is_not_there(bucket):
    with pytest.raises(VolumeNotFoundError, match="check the address, and the credentials"):
        open_volume(f"{bucket}/none.zarr")
    with pytest.raises(StoreError, match="bucket does not exist"):
        create_zarr("s3://none/a.zarr", shape=SHAPE, dtype="uint16", chunk_shape=(3, 5, 6))


@pytest.fixture
def anonymous(s3, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    forget_clients()
    yield
    forget_clients()


def test_public_buckets_are_read_without_credentials(s3, anonymous, stored, voxels):
    np.testing.assert_array_equal(open_volume(stored.uri).read(PART), voxels[CUT])
    missing = "/volumes/stored.zarr/c/0/0/0"
    # Who may not list a bucket is told that what is not there is forbidden.
    with s3.failing(lambda method, path, _: "AccessDenied" if path.endswith((".zarray", ".zattrs", missing)) else None):
        read = open_volume(stored.uri).read(WHOLE)
    assert not read[:, :10, :12].any()
    np.testing.assert_array_equal(read[:, 10:], voxels[:, 10:])
    with pytest.raises(StoreError, match="refused"):
        open_volume(stored.uri).write(WHOLE, voxels)


@pytest.mark.parametrize("fault", [None, "SlowDown", "dropped", "cut", "AccessDenied"])
def test_a_web_server_is_read_and_asked_again(s3, stored, voxels, fault):
    spared = () if fault != "AccessDenied" else ("zarr.json", "/c/")
    fails = lambda method, path, before: fault if not before and not any(s in path for s in spared) else None  # noqa: E731
    with s3.failing(fails):
        volume = open_volume(stored.uri.replace("s3:/", s3.address))
        np.testing.assert_array_equal(volume.read(PART), voxels[CUT])
        with pytest.raises(StoreError):
            volume.write(WHOLE, voxels)


def test_a_web_server_without_ranges_is_read(tmp_path, voxels):
    create(str(tmp_path / "a.zarr"), voxels)
    handler = functools.partial(_SilentFiles, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        volume = open_volume(f"http://127.0.0.1:{server.server_port}/a.zarr")
        np.testing.assert_array_equal(volume.read(PART), voxels[CUT])
        server.shutdown()


class _SilentFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def test_a_forked_process_reads(stored, voxels):
    np.testing.assert_array_equal(stored.read(PART), voxels[CUT])
    with multiprocessing.get_context("fork").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply_async(stored.read, (PART,)).get(30), voxels[CUT])


def test_a_process_ends_without_complaints(stored):
    program = f"from spoco_blocks.volumes import open_volume; print(open_volume({stored.uri!r}).meta.shape)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert (ended.stdout.strip(), ended.stderr) == (str(SHAPE), "")


@pytest.mark.parametrize(
    ("uri", "package"), [("s3://b/a.zarr", "s3fs"), ("https://b/a.zarr", "fsspec.implementations.http")]
)
def test_a_missing_package_is_named(monkeypatch, uri, package):
    from spoco_blocks.volumes import object_store

    monkeypatch.setitem(sys.modules, package, None)
    object_store._web_files.cache_clear()
    with pytest.raises(VolumeError, match=r"pip install 'spoco-blocks\[s3\]'"):
        open_volume(uri)


@pytest.mark.parametrize(
    "tree",
    [
        {"volumes": {"a": {"raw": {"uri": "s3://me:secret@bucket/a.zarr"}}}},
        {"volumes": {}, "execution": {"arrays": "s3://me:secret@bucket"}},
        {"volumes": {}, "execution": {"arrays": "https://bucket/a"}},
    ],
)
def test_addresses_that_a_configuration_must_not_hold(tree):
    with pytest.raises(SettingsError, match=r"credentials do not belong|written to a folder or to s3") as error:
        parse_settings({"models": {}, "segmentations": {}, **tree})
    assert "secret" not in str(error.value)
