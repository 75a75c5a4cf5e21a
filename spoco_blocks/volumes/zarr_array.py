"""Zarr arrays, format 2 and 3: the array itself, without a pyramid."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from math import prod
from typing import Any, Literal

import numcodecs
import numpy as np
import zarr
from numpy.typing import DTypeLike
from zarr.codecs import BloscCodec

from spoco_blocks.errors import SpocoBlocksError, VolumeError, VolumeNotFoundError
from spoco_blocks.grid import Triple
from spoco_blocks.volumes.layout import Index, Layout, StoredVolume, VoxelSize, layout_of, meta_of, voxel_size_of
from spoco_blocks.volumes.object_store import is_remote, reaching, zarr_store
from spoco_blocks.volumes.pipeline import codec_pipeline
from spoco_blocks.volumes.protocol import VolumeMeta, Voxels

_CHUNK_VOXELS = 2**18
_CHUNK_BYTES = 2**20


class ZarrVolume(StoredVolume):
    """A volume in a Zarr array. Travels between processes without its open handles, which no fork may share."""

    def __init__(self, uri: str, meta: VolumeMeta, layout: Layout) -> None:
        super().__init__(uri, meta, layout)
        self._handles: dict[tuple[int, str], Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": {}}

    def _array(self, mode: Literal["r", "r+"]) -> Any:
        key = os.getpid(), mode
        if key not in self._handles:
            # zarrs knows no stores but local ones
            with codec_pipeline(fast=mode == "r" and not is_remote(self._uri)):
                array = zarr.open_array(zarr_store(self._uri), mode=mode)
            if not array.dtype.isnative:  # of format 2 only; zarrs refuses it
                with codec_pipeline(fast=False):
                    array = zarr.open_array(zarr_store(self._uri), mode=mode)
            self._handles[key] = array
        return self._handles[key]

    def _read(self, index: Index) -> Voxels:
        with reaching(self._uri):
            voxels: Voxels = np.asarray(self._array("r")[index])
        return voxels

    def _write(self, index: Index, voxels: Voxels) -> None:
        with reaching(self._uri):
            self._array("r+")[index] = voxels


def open_node(uri: str) -> Any:
    """Open what Zarr finds at a URI, for reading: an array, a group, or None.

    Raises
    ------
    VolumeError
        When the URI is remote and the library that reaches it is not installed, or the metadata is damaged.
    StoreError
        When the URI is remote and the place does not answer.
    """
    try:
        with reaching(uri), suppress(FileNotFoundError, NotADirectoryError), codec_pipeline(fast=False):
            return zarr.open(zarr_store(uri), mode="r")
    except SpocoBlocksError:
        raise
    except (OSError, ValueError) as error:
        raise VolumeError(
            f"{uri}: its Zarr metadata cannot be read ({type(error).__name__}: {error}); copy or create it again."
        ) from error
    return None


def children(group: Any) -> str:
    """Name the arrays and groups inside a group, for a message."""
    found = [f"{name} ({'x'.join(map(str, node.shape))} {node.dtype})" for name, node in group.arrays()]
    found += [f"{name}/" for name, _ in group.groups()]
    return ", ".join(sorted(found)) or "nothing"


def detects(uri: str) -> bool:
    """Tell whether there is a Zarr array or group."""
    return open_node(uri) is not None


def open_zarr(
    uri: str, *, level: int = 0, axes: str | None = None, voxel_size_nm: VoxelSize | None = None
) -> ZarrVolume:
    """Open a Zarr array, or the only array of a group.

    Axes come from ``axes``, else from the dimension names of the array, else from their number (yx, zyx, czyx). The
    voxel size comes from ``voxel_size_nm``, else from an attribute of that name (z, y, x).

    Raises
    ------
    VolumeError
        When there is no single array, a level is asked for, or the axes do not fit.
    VolumeNotFoundError
        When there is no Zarr array or group.
    """
    node = open_node(uri)
    if node is None:
        raise VolumeNotFoundError(f"{uri}: no Zarr array or group there; check the path.")
    if isinstance(node, zarr.Group):
        arrays = list(node.arrays())
        if len(arrays) != 1:
            raise VolumeError(f"{uri}: is a group without image metadata; name one of its arrays: {children(node)}.")
        uri, node = f"{uri}/{arrays[0][0]}", arrays[0][1]
    if level:
        raise VolumeError(f"{uri}: is a plain array and has level 0 only; got level {level}.")
    size = voxel_size_nm or voxel_size_of(node.attrs.get("voxel_size_nm"))
    return volume_of(uri, node, axes or _named_axes(node), size)


def volume_of(uri: str, array: Any, axes: str | None, voxel_size_nm: VoxelSize | None) -> ZarrVolume:
    """Make a volume of an open array."""
    layout = layout_of(uri, array.shape, axes)
    return ZarrVolume(uri, meta_of(uri, layout, array.dtype, array.chunks, array.shards, voxel_size_nm), layout)


def _named_axes(array: Any) -> str | None:
    names = getattr(array.metadata, "dimension_names", None) or ()
    single = all(isinstance(n, str) and n in "tcnzyx" and len(n) == 1 for n in names)
    return "".join(names) if names and single else None


def choose_chunks(shape: Triple, dtype: DTypeLike) -> Triple:
    """Choose chunks of powers of two, as cubic as the shape allows, of at most 2**18 voxels and 1 MiB."""
    limit = min(_CHUNK_VOXELS, _CHUNK_BYTES // np.dtype(dtype).itemsize)
    chunk = [1, 1, 1]
    while 2 * prod(chunk) <= limit:
        growing = [axis for axis in (2, 1, 0) if chunk[axis] < shape[axis]]
        if not growing:
            break
        chunk[min(growing, key=lambda axis: chunk[axis])] *= 2
    return chunk[0], chunk[1], chunk[2]


def create_array(
    uri: str,
    *,
    axes: str,
    shape: Triple,
    channels: int | None,
    dtype: DTypeLike,
    chunk_shape: Triple,
    shard_shape: Triple | None,
    fill_value: float = 0,
    zarr_format: Literal[2, 3] = 3,
    attributes: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Create an empty array with axes "zyx", "czyx" or "nyx"; a chunk holds all channels.

    Raises
    ------
    VolumeError
        When something is there already, or axes, channels, chunks and shards do not fit each other.
    """
    spatial = axes.removeprefix("c")
    if spatial not in {"zyx", "nyx"} or (spatial == "nyx" and channels):
        raise VolumeError(f'{uri}: cannot create axes "{axes}" with channels={channels}; expected "zyx" or "nyx".')
    if min(*shape, *chunk_shape) < 1:
        raise VolumeError(f"{uri}: cannot create shape {shape} in chunks {chunk_shape}; expected positive extents.")
    if shard_shape and any(s < 1 or s % c for s, c in zip(shard_shape, chunk_shape, strict=True)):
        raise VolumeError(f"{uri}: shards {shard_shape} must be whole multiples of the chunks {chunk_shape}.")
    if shard_shape and zarr_format == 2:
        raise VolumeError(f"{uri}: Zarr format 2 knows no shards; got {shard_shape}. Leave them out or take format 3.")
    refuse_existing(uri, overwrite)
    # one channel is presented without its axis, so it is stored without one
    first: tuple[int, ...] = (channels,) if channels and channels > 1 else ()
    names = ("c" if first else "") + spatial
    with reaching(uri), codec_pipeline(fast=False):
        zarr.create_array(
            zarr_store(uri),
            shape=(*first, *shape),
            chunks=(*first, *chunk_shape),
            shards=(*first, *shard_shape) if shard_shape else None,
            dtype=np.dtype(dtype),
            compressors=_compressor(np.dtype(dtype), zarr_format),
            fill_value=fill_value,
            zarr_format=zarr_format,
            chunk_key_encoding={"name": "v2", "separator": "/"} if zarr_format == 2 else None,
            dimension_names=tuple(names) if zarr_format == 3 else None,
            attributes=attributes,
            overwrite=overwrite,
        )


def refuse_existing(uri: str, overwrite: bool) -> None:
    """Stop before something that exists is replaced.

    Raises
    ------
    VolumeError
        When there is a Zarr array or group and it must not be overwritten.
    """
    if not overwrite and open_node(uri) is not None:
        raise VolumeError(f"{uri}: exists already; remove it, choose another path, or pass overwrite=True.")


# Measured on embeddings, foreground and affinities: lz4 takes an eighth of the time of zstd for a float, for 5 %
# more bytes; level 1 half of that of level 3 for a byte, for 2 %. Ids repeat so much that a level costs nothing.
def _compression(dtype: np.dtype[Any]) -> tuple[Literal["lz4", "zstd"], int]:
    if dtype.kind == "f":
        return "lz4", 5
    return "zstd", 1 if dtype.itemsize == 1 else 3


def _compressor(dtype: np.dtype[Any], zarr_format: Literal[2, 3]) -> Any:
    name, level = _compression(dtype)
    if zarr_format == 2:
        return numcodecs.Blosc(cname=name, clevel=level, shuffle=numcodecs.Blosc.BITSHUFFLE)
    return BloscCodec(cname=name, clevel=level, shuffle="bitshuffle", typesize=dtype.itemsize)


def compressed_bytes(voxels: Voxels) -> int:
    """Give the bytes that an array takes when it is compressed as in a store."""
    return len(_compressor(voxels.dtype, 2).encode(np.ascontiguousarray(voxels)))


def create_zarr(
    uri: str,
    *,
    shape: Sequence[int],
    dtype: DTypeLike,
    chunk_shape: Triple,
    channels: int | None = None,
    shard_shape: Triple | None = None,
    voxel_size_nm: VoxelSize | None = None,
    axes: str = "zyx",
    fill_value: float = 0,
    overwrite: bool = False,
) -> ZarrVolume:
    """Create an empty plain Zarr array, format 3, for what a stage keeps between its steps.

    Parameters
    ----------
    uri : str
        Where; any process can open it by this.
    shape : tuple of int
        Extent along z, y, x (n, y, x).
    dtype : numpy.dtype
        Data type.
    chunk_shape : tuple of int
        Smallest unit of reading along z, y, x; holds all channels.
    channels : int, optional
        Number of channels; one channel is stored and presented without a channel axis.
    shard_shape : tuple of int, optional
        Smallest unit of writing along z, y, x, a multiple of the chunk; chunks are files of their own without it.
    voxel_size_nm : tuple of float, optional
        Extent of a voxel along z, y, x in nm.
    axes : str
        "zyx" or "nyx"; a channel axis is added where there are channels.
    fill_value : float
        Value of voxels that were never written.
    overwrite : bool
        Whether to replace what is there.

    Returns
    -------
    Volume
        The empty volume, writable.

    Raises
    ------
    VolumeError
        When something is there already, or axes, channels, chunks and shards do not fit each other.
    """
    z, y, x = shape
    create_array(
        uri,
        axes=axes,
        shape=(z, y, x),
        channels=channels,
        dtype=dtype,
        chunk_shape=chunk_shape,
        shard_shape=shard_shape,
        fill_value=fill_value,
        attributes={"voxel_size_nm": list(voxel_size_nm)} if voxel_size_nm else None,
        overwrite=overwrite,
    )
    return open_zarr(uri)
