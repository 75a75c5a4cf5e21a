"""Cityscapes: street scenes in leftImg8bit/SPLIT/CITY, instance ids in gtFine/SPLIT/CITY."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from spoco_blocks.errors import VolumeError, VolumeNotFoundError
from spoco_blocks.volumes.image_stack import (
    RGB,
    Content,
    ImageStack,
    check_opening,
    listed,
    read_ids,
    size_of,
    split_query,
)
from spoco_blocks.volumes.layout import VoxelSize
from spoco_blocks.volumes.protocol import Voxels

_ENDINGS = {"leftImg8bit": "_leftImg8bit.png", "gtFine": "_gtFine_instanceIds.png"}
# Classes of countable things that the benchmark scores, and two that it does not.
_THINGS = {
    "person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
_CLASSES = _THINGS | {"caravan": 29, "trailer": 30}
# An instance is class * 1000 + number; what has no number is stuff, or a crowd of things that were not told apart.
_CLASS_STEP = 1000


@dataclass(frozen=True)
class _Chosen:
    """Reads the instances of some classes, or the mask of their crowds."""

    classes: tuple[int, ...]
    crowd: bool

    def __call__(self, path: Path) -> Voxels:
        ids = read_ids(path)
        if self.crowd:
            return np.isin(ids, self.classes).astype(np.uint8)
        return np.where(np.isin(ids // _CLASS_STEP, self.classes), ids, np.uint32(0))


def detects(uri: str) -> bool:
    """Tell whether the URI names a split of Cityscapes that is there."""
    place = Path(uri.partition("?")[0])
    return place.parent.name in _ENDINGS and place.is_dir()


def open_cityscapes(
    uri: str, *, level: int = 0, axes: str | None = None, voxel_size_nm: VoxelSize | None = None
) -> ImageStack:
    """Open ``FOLDER/leftImg8bit/SPLIT``, ``FOLDER/gtFine/SPLIT?class=CLASS`` or ``FOLDER/gtFine/SPLIT?crowd=CLASS``.

    Images are in the order of cities and names. CLASS is one of person, rider, car, truck, bus, train, motorcycle,
    bicycle, caravan, trailer, or `things` for the first eight, which is also what no CLASS means. `crowd` is a mask of
    where things of the class were not told apart. A further ``downscale=2`` averages two by two pixels, of ids takes
    the most frequent one.

    Raises
    ------
    VolumeError
        When a level or other axes are asked for, the class is not known, or images and instances do not go together.
    VolumeNotFoundError
        When there are no images.
    """
    place, options, downscale = split_query(uri, ("class", "crowd"))
    folder = Path(place)
    part = folder.parent.name
    if part not in _ENDINGS or not (names := _names(folder)):
        raise VolumeNotFoundError(f"{uri}: no CITY/*{_ENDINGS.get(part, '.png')} there; give the folder of a split.")
    content = (
        RGB if part == "leftImg8bit" else Content(_chosen(uri, options), "uint8" if "crowd" in options else "uint32")
    )
    if part == "leftImg8bit" and options:
        raise VolumeError(f"{uri}: images have no classes; leave {listed(sorted(options))} out.")
    check_opening(uri, level, axes, content)
    if part == "gtFine":
        _check_complete(uri, folder, names)
    paths = [folder / (name + _ENDINGS[part]) for name in names]
    return ImageStack(uri, paths, [size_of(path) for path in paths], content, voxel_size_nm, downscale)


def _names(folder: Path) -> list[str]:
    """Give city and name of every image of a split, without what tells its parts apart."""
    ending = _ENDINGS[folder.parent.name]
    return sorted(str(path.relative_to(folder)).removesuffix(ending) for path in folder.glob(f"*/*{ending}"))


def _check_complete(uri: str, folder: Path, names: list[str]) -> None:
    """Images and instances go together by their order, so that none of either may be missing."""
    images = folder.parent.parent / "leftImg8bit" / folder.name
    if images.is_dir() and (odd := sorted(set(names) ^ set(_names(images)))):
        raise VolumeError(
            f"{uri}: {listed(odd)} is not in both {folder} and {images}; every image needs its instances, and the "
            "other way round."
        )


def _chosen(uri: str, options: dict[str, str]) -> _Chosen:
    if len(options) > 1:
        raise VolumeError(f"{uri}: class and crowd are two volumes; give one of them.")
    name = next(iter(options.values()), "things")
    if name != "things" and name not in _CLASSES:
        near = get_close_matches(name, _CLASSES, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else f"; expected things, {', '.join(_CLASSES)}."
        raise VolumeError(f"{uri}: knows no class '{name}'{hint}")
    classes = tuple(_THINGS.values()) if name == "things" else (_CLASSES[name],)
    return _Chosen(classes, crowd="crowd" in options)
