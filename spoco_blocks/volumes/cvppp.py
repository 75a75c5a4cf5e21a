"""Folders of plant images of the Leaf Segmentation Challenge (CVPPP): plantNNN_rgb.png and plantNNN_label.png."""

from __future__ import annotations

from pathlib import Path

from spoco_blocks.errors import VolumeError, VolumeNotFoundError
from spoco_blocks.volumes.image_stack import (
    IDS,
    PADDING,
    RGB,
    ImageStack,
    check_opening,
    listed,
    size_of,
    split_query,
)
from spoco_blocks.volumes.layout import VoxelSize

_CONTENTS = {"rgb": RGB, "label": IDS, "padding": PADDING}


def detects(uri: str) -> bool:
    """Tell whether the URI names a volume beside images of plants."""
    place = Path(uri.partition("?")[0])
    return place.name in _CONTENTS and not place.exists() and any(place.parent.glob("*_rgb.png"))


def open_cvppp(
    uri: str, *, level: int = 0, axes: str | None = None, voxel_size_nm: VoxelSize | None = None
) -> ImageStack:
    """Open ``FOLDER/rgb``, ``FOLDER/label`` or ``FOLDER/padding``, where FOLDER holds the images, A1 for instance.

    Images are in the order of their names and as large as the largest, zero-padded at their far ends. `rgb` has the
    channels red, green, blue; `label` the leaves' ids, 0 for background; `padding` is 1 beyond an image's own size.
    ``?downscale=2`` averages two by two pixels, of ids takes the most frequent one.

    Raises
    ------
    VolumeError
        When a level or other axes are asked for, labels are missing, or do not have the size of their image.
    VolumeNotFoundError
        When there are no images.
    """
    place, _, downscale = split_query(uri, ())
    folder, kind = Path(place).parent, Path(place).name
    if kind not in _CONTENTS or not (images := sorted(folder.glob("*_rgb.png"))):
        raise VolumeNotFoundError(f"{uri}: no *_rgb.png there; expected FOLDER/rgb, FOLDER/label or FOLDER/padding.")
    content = _CONTENTS[kind]
    check_opening(uri, level, axes, content)
    sizes = [size_of(path) for path in images]
    if kind == "label":
        labels = [path.with_name(path.name.removesuffix("_rgb.png") + "_label.png") for path in images]
        if missing := [path.name for path in labels if not path.is_file()]:
            raise VolumeError(f"{uri}: {listed(missing)} missing in {folder}; every image needs its labels.")
        for path, size in zip(labels, sizes, strict=True):
            if size_of(path) != size:
                raise VolumeError(
                    f"{path}: is {size_of(path)} pixels (height, width), its image {size}; they must show the same."
                )
        images = labels
    return ImageStack(uri, images, sizes, content, voxel_size_nm, downscale)
