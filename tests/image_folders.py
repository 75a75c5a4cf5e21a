"""Small folders in the layouts of the CVPPP leaf segmentation challenge and of Cityscapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CAR, PERSON, ROAD = 26, 24, 7


def plant(size: tuple[int, int], rng: np.random.Generator, leaves: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Bright green discs on brown, each a shade of its own: rgb (y, x, 3) uint8 and ids (y, x) uint8."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    labels, rgb = np.zeros(size, np.uint8), np.empty((*size, 3))
    rgb[:] = 90, 60, 40
    places = [(i, j) for i in range(8, height - 6, 16) for j in range(8, width - 6, 16)]
    for number, index in enumerate(rng.permutation(len(places))[:leaves], 1):
        inside = np.hypot(y - places[index][0], x - places[index][1]) < rng.uniform(5, 6.5)
        labels[inside] = number
        rgb[inside] = 40, rng.uniform(160, 230), 60
    return (rgb + rng.normal(0, 5, rgb.shape)).clip(0, 255).astype(np.uint8), labels


def write_cvppp(folder: Path, sizes: list[tuple[int, int]], seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Write images of plants, with an alpha channel, and labels as palette, 8-bit and 16-bit images in turn."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    plants = [plant(size, rng) for size in sizes]
    for number, (rgb, labels) in enumerate(plants, 1):
        alpha = np.full((*labels.shape, 1), 200, np.uint8)
        Image.fromarray(np.concatenate([rgb, alpha], axis=-1)).save(folder / f"plant{number:03}_rgb.png")
        image = Image.fromarray(labels.astype(np.uint8 if number % 3 else np.uint16))
        if number % 3 == 1:
            image = image.convert("P")
            image.putpalette(np.roll(np.arange(768) % 256, 5).tolist())
        image.save(folder / f"plant{number:03}_label.png")
        Image.fromarray((labels > 0).astype(np.uint8)).save(folder / f"plant{number:03}_fg.png")
    return plants


def write_cityscapes(folder: Path, split: str = "train") -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Write two cities with three streets of 32 x 64 pixels; give name, rgb and ids in the order of reading."""
    rng, written = np.random.default_rng(0), []
    for name in ("aachen/aachen_000000_000019", "aachen/aachen_000001_000019", "bochum/bochum_000000_000313"):
        rgb = rng.integers(0, 255, (32, 64, 3), dtype=np.uint8)
        ids = np.full((32, 64), ROAD, np.uint16)
        ids[4:12, 4:16], ids[4:12, 20:32] = CAR * 1000, CAR * 1000 + 1
        ids[20:30, 6:10], ids[20:30, 40:60] = PERSON * 1000, CAR
        for part, array in (("leftImg8bit", rgb), ("gtFine", ids)):
            path = folder / part / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            ending = "leftImg8bit" if part == "leftImg8bit" else "gtFine_instanceIds"
            Image.fromarray(array).save(f"{path}_{ending}.png")
        (folder / "gtFine" / split / f"{name}_gtFine_polygons.json").write_text("{}")
        written.append((name, rgb, ids))
    return written
