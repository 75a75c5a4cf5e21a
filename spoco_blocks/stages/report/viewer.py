"""The slice viewer's data: one copy of each layer, which the page slices in all three directions."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from spoco_blocks.grid import Triple, triple
from spoco_blocks.stages.report.content import Picture, ReportContent
from spoco_blocks.stages.report.images import (
    label_colours,
    overlay,
    pack_grey,
    pack_labels,
    png_uri,
    truth_colours,
)

Tree = dict[str, Any]

PLANES = ("xy", "yz", "xz")
_NORMAL = {"xy": 0, "xz": 1, "yz": 2}


def viewer(content: ReportContent) -> Tree | None:
    """Give what the template needs: the packed layers, a still of each direction, the layers that there are."""
    picture = content.picture
    if picture is None or not picture.raw.size:
        return None
    pixel = _pixel_size(content, picture)
    z, y, x = (n * p for n, p in zip(picture.shape, pixel, strict=True))
    planes = ("xy",) if content.flat else PLANES
    place = _first_place(picture)
    return {
        "planes": [
            {
                "name": plane,
                "still": png_uri(_still(picture, plane, place)),
                "slices": picture.shape[_NORMAL[plane]],
                "start": place[_NORMAL[plane]],
            }
            for plane in planes
        ],
        "extent": {"x": round(x / max(x, y, z), 5), "y": round(y / max(x, y, z), 5), "z": round(z / max(x, y, z), 5)},
        "layers": [name for name in ("foreground", "embedding_rgb", "truth") if getattr(picture, name) is not None],
        "data": _as_json({**_data(content, picture, pixel), "place": place}),
        "whole": all(n * s >= v for n, s, v in zip(picture.shape, picture.step, content.shape, strict=True)),
    }


def _pixel_size(content: ReportContent, picture: Picture) -> tuple[float, float, float]:
    """Size of a displayed voxel: in nm, or in voxels where nobody said."""
    size = content.voxel_size_nm or (1.0, 1.0, 1.0)
    z, y, x = (v * s for v, s in zip(size, picture.step, strict=True))
    return z, y, x


def _first_place(picture: Picture) -> Triple:
    """Give the voxel to look at first: inside the object nearest to the middle, or the middle where there is none."""
    middle = triple(n // 2 for n in picture.shape)
    sparse = np.argwhere(picture.segments[::2, ::2, ::2]) * 2
    if not len(sparse):
        return middle
    nearest = sparse[((sparse - middle) ** 2).sum(axis=1).argmin()]
    of_object = np.argwhere(picture.segments == picture.segments[tuple(nearest)])
    return triple(of_object[((of_object - of_object.mean(axis=0)) ** 2).sum(axis=1).argmin()])


def _still(picture: Picture, plane: str, place: Triple) -> NDArray[np.uint8]:
    z, y, x = place
    if plane == "xy":
        return overlay(picture.raw[z], picture.segments[z])
    if plane == "xz":
        return overlay(picture.raw[:, y], picture.segments[:, y])
    return overlay(picture.raw[:, :, x].T, picture.segments[:, :, x].T)


def _data(content: ReportContent, picture: Picture, pixel: tuple[float, float, float]) -> Tree:
    layers: Tree = {"raw": {"bits": 7, "data": pack_grey(picture.raw, 7)}}
    if picture.foreground is not None:
        layers["foreground"] = {"bits": 5, "data": pack_grey(picture.foreground, 5)}
    if picture.embedding_rgb is not None:
        # half the resolution in the plane: embeddings change slowly, and three colours are three times the bytes
        coarse = picture.embedding_rgb[:, :, ::2, ::2]
        layers["embeddings"] = {"bits": 5, "data": pack_grey(coarse / 255, 5), "shape": coarse.shape[1:]}
    layers["segments"] = _labels(picture.segments, None, content)
    if picture.truth is not None:
        layers["truth"] = _labels(picture.truth, picture.segments, None)
    return {
        "shape": picture.shape,
        "start": picture.box.start,
        "step": picture.step,
        "pixel": pixel,
        "known": content.voxel_size_nm is not None,
        "independent": content.independent_images,
        "scored": _scored(content, picture),
        "layers": layers,
    }


def _labels(labels: NDArray[Any], segments: NDArray[Any] | None, content: ReportContent | None) -> Tree:
    packed, ids = pack_labels(labels)
    colours = label_colours(ids) if segments is None else truth_colours(labels, segments, ids)
    layer: Tree = {
        "data": packed,
        "ids": [str(i) for i in ids.tolist()],
        "colours": base64.b64encode(np.ascontiguousarray(colours).tobytes()).decode(),
    }
    if content is not None:
        known = np.isin(content.objects.id, ids)
        sizes = dict(zip(content.objects.id[known].tolist(), content.objects.voxels[known].tolist(), strict=True))
        layer["voxels"] = [sizes.get(i) for i in ids.tolist()]
    return layer


def _scored(content: ReportContent, picture: Picture) -> list[list[float]] | None:
    """The scored region in displayed voxels; None where it leaves nothing visible out."""
    if content.scored is None or content.scored.contains(picture.box):
        return None
    return [
        [(v - o) / s for v, o, s in zip(corner, picture.box.start, picture.step, strict=True)]
        for corner in (content.scored.start, content.scored.stop)
    ]


def _as_json(tree: Tree) -> Markup:
    # "<" is the one character that could end the script element early
    return Markup(json.dumps(tree, separators=(",", ":")).replace("<", "\\u003c"))
