"""Arrays as pictures: label colours, embeddings as colours, PNG and the packed layers of the slice viewer."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.kernels.contingency import contingency

Bytes = NDArray[np.uint8]

_TURN = 0.6180339887498949  # golden ratio: hues of consecutive ids are far apart, and no hue comes back soon
_SAMPLE = 20_000


def label_colours(ids: NDArray[Any]) -> Bytes:
    """Give each id its colour, (n, 3): always the same, and clearly different for neighbouring ids."""
    numbers = np.asarray(ids, np.float64)
    hue = 2 * np.pi * np.mod(0.1 + numbers * _TURN, 1)
    lightness = 0.68 + 0.08 * (np.mod(numbers, 3) - 1)
    chroma = 0.18 - 0.03 * np.mod(numbers, 2)
    return _oklch(lightness, chroma, hue)


def _oklch(lightness: NDArray[Any], chroma: NDArray[Any], hue: NDArray[Any]) -> Bytes:
    """Convert OKLCH to sRGB (B. Ottosson 2020): equal lightness looks equally light in every hue."""
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
    to_lms = np.array(
        [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip((lab @ to_lms.T) ** 3 @ to_rgb.T, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    rgb: Bytes = np.round(255 * srgb).astype(np.uint8)
    return rgb


def truth_colours(truth: NDArray[Any], segments: NDArray[Any], ids: NDArray[Any]) -> Bytes:
    """Give truth ids the colour of the segment that covers them best, so that agreement is one colour.

    A segment lends its colour once, to the truth object it overlaps most; the others get colours of their own.
    """
    colours = label_colours(np.asarray(ids, np.float64) + 1009)
    pairs, counts = contingency(truth, segments)
    both = (pairs > 0).all(axis=1)
    pairs, counts = pairs[both], counts[both]
    place = {int(i): n for n, i in enumerate(ids)}
    lent: set[int] = set()
    done: set[int] = set()
    for row in np.argsort(-counts, kind="stable"):
        t, s = int(pairs[row, 0]), int(pairs[row, 1])
        if t in done or s in lent or t not in place:
            continue
        colours[place[t]] = label_colours(np.array([s]))[0]
        done.add(t)
        lent.add(s)
    return colours


def embedding_rgb(embeddings: NDArray[Any], foreground: NDArray[Any] | None = None) -> Bytes:
    """Show embeddings (c, z, y, x) as colours (3, z, y, x): their three principal components.

    The components are those of the voxels in `foreground` (a mask) where there are enough, so that the colours tell
    objects apart rather than objects from background.
    """
    channels = embeddings.shape[0]
    flat = embeddings.reshape(channels, -1)
    chosen = np.flatnonzero(foreground) if foreground is not None else np.zeros(0, int)
    if len(chosen) < 100:
        chosen = np.arange(flat.shape[1])
    chosen = chosen[:: max(1, len(chosen) // _SAMPLE)]
    sample = flat[:, chosen].T.astype(np.float64)
    mean = sample.mean(axis=0)
    _, _, directions = np.linalg.svd(sample - mean, full_matrices=False)
    directions = np.pad(directions[:3], ((0, 3 - min(3, len(directions))), (0, 0)))
    largest = np.abs(directions).argmax(axis=1)
    directions *= np.where(directions[np.arange(3), largest] < 0, -1, 1)[:, None]
    low, high = np.percentile((sample - mean) @ directions.T, (1, 99), axis=0)
    rgb = np.empty((3, flat.shape[1]), np.uint8)
    for component in range(3):
        values = directions[component].astype(np.float32) @ flat - np.float32(mean @ directions[component])
        scaled = (values - low[component]) / max(high[component] - low[component], 1e-6)
        rgb[component] = np.clip(20 + 225 * scaled, 0, 255)
    return rgb.reshape(3, *embeddings.shape[1:])


def overlay(raw: NDArray[Any], labels: NDArray[Any], opacity: float = 0.45) -> Bytes:
    """Colour the labels of a 2D slice over its grey values (0 to 1): (y, x, 3)."""
    rgb = np.repeat(255 * np.clip(raw, 0, 1)[..., None], 3, axis=-1)
    inside = labels > 0
    rgb[inside] = (1 - opacity) * rgb[inside] + opacity * label_colours(labels[inside])
    return np.round(rgb).astype(np.uint8)


def png_uri(rgb: Bytes) -> str:
    """Give an image (y, x, 3) as a data URI."""
    height, width, _ = rgb.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)
    rows[:, 1:] = rgb.reshape(height, -1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()


def hex_colour(rgb: Bytes) -> str:
    """Give one colour as CSS reads it."""
    return "#" + bytes(rgb.tolist()).hex()


def pack_grey(values: NDArray[Any], bits: int) -> str:
    """Pack values from 0 to 1 as bytes for the viewer: differences along x, deflated, base64.

    Fewer bits than eight, because the last bits of noise are what does not compress and what no eye sees.
    """
    levels = (1 << bits) - 1
    scaled = np.round(np.clip(np.nan_to_num(values), 0, 1) * levels).astype(np.uint8)
    return _deflated(np.diff(scaled, axis=-1, prepend=np.uint8(0)))


def pack_labels(labels: NDArray[Any]) -> tuple[str, NDArray[Any]]:
    """Pack labels as places in the list of ids that are present, deflated, base64: the packed layer and the list.

    Place 0 is background; more than 65535 ids share the last place, which no picture of this size reaches.
    """
    ids, places = np.unique(labels, return_inverse=True)
    offset = 0 if len(ids) and ids[0] == 0 else 1
    places = np.minimum(places.reshape(labels.shape) + offset, 65535)
    return _deflated(places.astype("<u2")), ids[1 - offset :]


def _deflated(array: NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode()
