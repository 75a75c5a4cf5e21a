"""Draw the picture of the README from the results of the demo: python docs/picture.py."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pyarrow.parquet as pq

from spoco_blocks.engine.layout import Layout
from spoco_blocks.grid import Box
from spoco_blocks.stages.report.images import overlay
from spoco_blocks.volumes import open_volume

BOUNDARY, SLICES = 40, (43, 30, 51)


def whole(uri: str | Path, level: int = 0) -> np.ndarray:
    """Read a small volume at once."""
    volume = open_volume(uri, level=level)
    return volume.read(Box.of_shape(volume.meta.shape))


def main() -> None:
    """Draw raw data with annotations, and with segments, in three directions."""
    layout = Layout(Path("results"))
    raw = whole("data/lightsheet_nuclei.zarr", 1).astype(float)
    grey = np.clip((raw - np.percentile(raw, 0.5)) / np.ptp(np.percentile(raw, [0.5, 99.8])), 0, 1) ** 0.8
    labels = whole("data/lightsheet_nuclei.zarr/labels/nuclei", 1)
    table = pq.read_table(layout.volume("demo").objects).to_pydict()
    annotated = [i for i, kept in zip(table["id"], table["annotated"], strict=True) if kept]
    left = np.arange(labels.shape[2]) < BOUNDARY
    known = np.where(np.isin(labels, annotated) & left, labels, 0)
    rows = (("annotated", known), ("segmented", whole(layout.segmentation("demo").segments)))
    figure, axes = plt.subplots(2, 3, figsize=(9.6, 6.5), facecolor="white", layout="constrained")
    for row, (title, objects) in zip(axes, rows, strict=True):
        for axis, (panel, at) in enumerate(zip(row, SLICES, strict=True)):
            picture = overlay(np.take(grey, at, axis), np.take(objects, at, axis), 0.5)
            panel.imshow(picture, interpolation="nearest")
            panel.set(xticks=[], yticks=[])
            panel.set_title(f"{title}, {('xy', 'xz', 'yz')[axis]}", fontsize=10)
            if axis < 2:
                panel.axvline(BOUNDARY - 0.5, color="white", linestyle="--", linewidth=1)
    figure.savefig("docs/demo.png", dpi=100)


if __name__ == "__main__":
    main()
