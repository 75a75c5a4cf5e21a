"""What neuroglancer is told to show: layers, where they lie, and where to look first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from spoco_blocks.engine.layout import Layout, SegmentationResults
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.errors import LedgerError
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.raw_pyramid import own_pyramid
from spoco_blocks.volumes import is_remote

VIEWER = "https://neuroglancer-demo.appspot.com/"
# Pixels that the longest edge of the volume takes at first.
PIXELS = 400


@dataclass(frozen=True)
class Scene:
    """A segmentation and what can be shown with it.

    Attributes
    ----------
    plan : Plan
        Extent, voxel size and intensities.
    places : dict
        Where `segmentation` is, and `raw`, `meshes` and `skeletons` as far as there are any: paths, or addresses on S3
        or a web server.
    """

    plan: Plan
    places: dict[str, str]

    @property
    def folders(self) -> dict[str, Path]:
        """What has to be served, because a browser does not reach it."""
        return {name: Path(place) for name, place in self.places.items() if not is_remote(place)}

    def state(self, address: str) -> dict[str, Any]:
        """Give neuroglancer's state, with files served at an address under the names of `folders`."""
        at = {name: place if is_remote(place) else f"{address}/{name}" for name, place in self.places.items()}
        size, shape = self.plan.voxel_size_nm[::-1], self.plan.shape[::-1]
        extent = max(n * s for n, s in zip(shape, size, strict=True)) / min(size)
        return {
            "dimensions": {axis: [nm * 1e-9, "m"] for axis, nm in zip("xyz", size, strict=True)},
            # Of a voxel it is the centre that has a whole number.
            "position": [(n - 1) // 2 for n in shape],
            "crossSectionScale": extent / PIXELS,
            "projectionScale": 1.5 * extent,
            "layers": [*_raw_layers(self.plan, at), _segmentation_layer(at)],
            "selectedLayer": {"layer": "segmentation"},
            "layout": "xy" if self.plan.planar else "4panel",
        }

    def link(self, address: str) -> str:
        """Give the address of a neuroglancer on the web that shows it; files come from here nevertheless."""
        return f"{VIEWER}#!{quote(json.dumps(self.state(address), separators=(',', ':')))}"


def _raw_layers(plan: Plan, at: Mapping[str, str]) -> list[dict[str, Any]]:
    """Give a layer for each channel, of which the first is visible."""
    if "raw" not in at:
        return []
    shown = plan.predicted.normalisation
    layers: list[dict[str, Any]] = [
        {"type": "image", "name": "raw", "source": f"zarr://{at['raw']}",
         "shaderControls": {"normalized": {"range": list(window)}}}
        for window in zip(shown.low, shown.high, strict=True)
    ]  # fmt: skip
    if len(layers) == 1:
        return layers
    place = {"localDimensions": {"c'": [1, ""]}}
    return [
        layer | place | {"name": f"raw {channel}", "localPosition": [channel], "visible": channel == 0}
        for channel, layer in enumerate(layers)
    ]


def _segmentation_layer(at: Mapping[str, str]) -> dict[str, Any]:
    shapes = [f"precomputed://{at[name]}" for name in ("meshes", "skeletons") if name in at]
    return {"type": "segmentation", "name": "segmentation", "source": [f"zarr://{at['segmentation']}", *shapes]}


def find_scene(layout: Layout, segmentation: str) -> Scene:
    """Find what there is of a segmentation.

    Raises
    ------
    LedgerError
        When it is not there yet.
    """
    results = layout.segmentation(segmentation)
    if not results.manifest("pyramid").exists():
        known = sorted(path.parent.name for path in layout.root.glob("segmentations/*/pyramid.json"))
        raise LedgerError(
            f'no finished segmentation "{segmentation}" in {layout.root}; there are {known}. Name one of these, or run '
            "the workflow first."
        )
    planned = Manifest.read(results.manifest("plan"))
    plan = Plan.read(planned)
    raw = find_raw(results, plan, planned.digest)
    places = {"segmentation": results.segments} | ({} if raw is None else {"raw": raw})
    shapes = {"meshes": ("mesh", results.meshes), "skeletons": ("skeleton", results.skeletons)}
    places |= {name: str(folder) for name, (stage, folder) in shapes.items() if results.manifest(stage).exists()}
    return Scene(plan, places)


def find_raw(results: SegmentationResults, plan: Plan, planned: str) -> str | None:
    """Give where the raw data have levels: in a copy of the volume as it is planned now, or where they are."""
    path = results.manifest("raw_pyramid")
    if path.exists():
        copied = Manifest.read(path)
        if copied.inputs["plan"] == planned:
            return str(copied.result["uri"])
    return own_pyramid(plan.predicted.raw, plan.voxel_size_nm)
