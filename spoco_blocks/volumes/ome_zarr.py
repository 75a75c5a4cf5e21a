"""OME-Zarr images and label images, versions 0.4 (Zarr format 2) and 0.5 (Zarr format 3), one level at a time.

The URI is that of the image group, or of one level's array in it: a volume opened as (group, level) calls itself by the
latter, so that a URI alone brings it back with the metadata of its group.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import zarr

from spoco_blocks.errors import VolumeError, VolumeNotFoundError
from spoco_blocks.volumes.layout import VoxelSize, voxel_size_of
from spoco_blocks.volumes.zarr_array import ZarrVolume, children, open_node, volume_of

NM_PER_UNIT = {
    "picometer": 1e-3,
    "angstrom": 0.1,
    "nanometer": 1.0,
    "micrometer": 1e3,
    "millimeter": 1e6,
    "centimeter": 1e7,
    "meter": 1e9,
}


@dataclass(frozen=True)
class Pyramid:
    """What the metadata of an image group says.

    Attributes
    ----------
    group_uri : str
        Where the group is.
    axes : str
        Axes of its arrays, one letter each.
    nm_per_unit : tuple of (float or None)
        Length of one unit in nm, for each axis; None where the group names no unit of length.
    paths : tuple of str
        Array of each level, below the group.
    scales : tuple of (tuple of float)
        Extent of a voxel in units of each axis, for each level; empty where a level states none.
    version : str or None
        Version of the metadata, as it says.
    """

    group_uri: str
    axes: str
    nm_per_unit: tuple[float | None, ...]
    paths: tuple[str, ...]
    scales: tuple[tuple[float, ...], ...]
    version: str | None

    def uri(self, level: int) -> str:
        """Where the array of a level is."""
        return f"{self.group_uri}/{self.paths[level]}"

    def voxel_size_nm(self, level: int) -> VoxelSize | None:
        """Voxel size of a level; None when the group does not say. A 2D image has the z extent of its y."""
        if not self.scales[level]:
            return None
        nm = {a: s * u for a, s, u in zip(self.axes, self.scales[level], self.nm_per_unit, strict=True) if u}
        return voxel_size_of([nm.get("z", nm.get("y") if "z" not in self.axes else None), nm.get("y"), nm.get("x")])

    def relative_scale(self, level: int) -> VoxelSize:
        """Give how much coarser a level is than level 0 along z, y, x.

        Raises
        ------
        VolumeError
            When the group does not say.
        """
        if level == 0:
            return 1.0, 1.0, 1.0
        both = zip(self.axes, self.scales[level], self.scales[0], strict=False)
        ratio = {axis: coarse / fine for axis, coarse, fine in both if fine}
        if not {"y", "x"} <= ratio.keys():
            raise VolumeError(
                f"{self.group_uri}: states no scale for level {level}, so that a voxel size for level 0 tells nothing "
                "of it; repair the metadata."
            )
        return ratio.get("z", 1.0), ratio["y"], ratio["x"]


def detects(uri: str) -> bool:
    """Tell whether there is an OME-Zarr image group, its list of labels, or the array of one of its levels."""
    node = open_node(uri)
    if isinstance(node, zarr.Group):
        return "multiscales" in ome_attributes(node) or "labels" in ome_attributes(node)
    return node is not None and _level_of_array(uri) is not None


def find_pyramid(uri: str) -> tuple[Pyramid, int] | None:
    """Describe the image that a URI names, and say which level; None where there is no OME-Zarr image.

    The URI of an image group names level 0, that of an array in it another one.

    Raises
    ------
    VolumeError
        When the metadata cannot be read as that of an image.
    """
    node = open_node(uri)
    if isinstance(node, zarr.Group) and ome_attributes(node).get("multiscales"):
        return _pyramid(uri), 0
    return _level_of_array(uri)


def ome_attributes(group: Any) -> dict[str, Any]:
    """Give the OME attributes of a group: those under "ome" in version 0.5, all of them before."""
    attributes: dict[str, Any] = group.attrs.asdict()
    ome: dict[str, Any] = attributes.get("ome", attributes)
    return ome


def open_ome_zarr(
    uri: str, *, level: int = 0, axes: str | None = None, voxel_size_nm: VoxelSize | None = None
) -> ZarrVolume:
    """Open one level of an OME-Zarr image.

    Time must have length 1 and is dropped, as is a channel axis of length 1; a 2D image is presented with z = 1.

    Parameters
    ----------
    uri : str
        The image group, or the array of a level; then `level` stays 0.
    level : int
        Level of the pyramid, 0 for full resolution.
    axes : str, optional
        Axes to assume instead of those of the metadata.
    voxel_size_nm : tuple of float, optional
        Extent of a voxel of level 0 along z, y, x in nm, instead of that of the metadata.

    Returns
    -------
    Volume
        The level.

    Raises
    ------
    VolumeError
        When there is no such level or the metadata cannot be read as that of an image.
    VolumeNotFoundError
        When the metadata names an array that is not there.
    """
    from_array = _level_of_array(uri)
    if from_array is None:
        pyramid = _pyramid(uri)
    elif level:
        raise VolumeError(f"{uri}: is the array of one level; open {from_array[0].group_uri} for level {level}.")
    else:
        pyramid, level = from_array
    if not 0 <= level < len(pyramid.paths):
        known = ", ".join(f"{k} ({path})" for k, path in enumerate(pyramid.paths))
        raise VolumeError(f"{pyramid.group_uri}: has no level {level}; it has {known}.")
    array = open_node(pyramid.uri(level))
    if not isinstance(array, zarr.Array):
        found = children(open_node(pyramid.group_uri))
        raise VolumeNotFoundError(
            f"{pyramid.uri(level)}: the metadata of the group names this array for level {level}, but it is not there; "
            f"the group holds {found}. The copy is incomplete."
        )
    if voxel_size_nm:
        z, y, x = (s * r for s, r in zip(voxel_size_nm, pyramid.relative_scale(level), strict=True))
        voxel_size_nm = z, y, x
    return volume_of(pyramid.uri(level), array, axes or pyramid.axes, voxel_size_nm or pyramid.voxel_size_nm(level))


def _level_of_array(uri: str) -> tuple[Pyramid, int] | None:
    group_uri, _, name = uri.rpartition("/")
    group = open_node(group_uri) if group_uri and isinstance(open_node(uri), zarr.Array) else None
    if not isinstance(group, zarr.Group) or "multiscales" not in ome_attributes(group):
        return None
    pyramid = _pyramid(group_uri)
    return (pyramid, pyramid.paths.index(name)) if name in pyramid.paths else None


def _pyramid(group_uri: str) -> Pyramid:
    group = open_node(group_uri)
    attributes = ome_attributes(group)
    if not attributes.get("multiscales"):
        labels = ", ".join(attributes.get("labels", ())) or "nothing"
        raise VolumeError(f"{group_uri}: is the list of label images; open one of them: {labels}.")
    image = attributes["multiscales"][0]
    try:
        axes = image["axes"]
        names = "".join(axis["name"].lower() for axis in axes)
        units = tuple(NM_PER_UNIT.get(axis.get("unit", "")) if axis["name"].lower() in "zyx" else None for axis in axes)
        common = _scale(image.get("coordinateTransformations", ()), len(axes)) or (1.0,) * len(axes)
        levels = [_scale(dataset.get("coordinateTransformations", ()), len(axes)) for dataset in image["datasets"]]
        return Pyramid(
            group_uri,
            names,
            units,
            tuple(dataset["path"] for dataset in image["datasets"]),
            tuple(tuple(a * b for a, b in zip(scale, common, strict=True)) if scale else () for scale in levels),
            attributes.get("version", image.get("version")),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise VolumeError(
            f"{group_uri}: its multiscales metadata (version {image.get('version', attributes.get('version'))}) is not "
            f"that of OME-Zarr 0.4 or 0.5 ({type(error).__name__}: {error}); the group holds {children(group)}."
        ) from error


def _scale(transformations: Any, axes: int) -> tuple[float, ...]:
    scales = [t["scale"] for t in transformations if t["type"] == "scale"]
    if not scales:
        return ()
    if any(len(s) != axes for s in scales):
        raise ValueError(f"scale {scales} for {axes} axes")
    return tuple(prod(float(v) for v in values) for values in zip(*scales, strict=True))
