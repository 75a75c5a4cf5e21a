"""Collects what the stages left behind: manifests, tables, and a bounded part of the volumes."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spoco_blocks.engine.layout import Layout, SegmentationResults
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.errors import VolumeError, VolumeNotFoundError
from spoco_blocks.grid import Box, triple
from spoco_blocks.settings.jobs import ReportJob
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.raw_pyramid import own_pyramid
from spoco_blocks.stages.report.content import ObjectTable, Picture, ReportContent, StageTime
from spoco_blocks.stages.report.costs import gather_costs
from spoco_blocks.stages.report.images import embedding_rgb
from spoco_blocks.stages.report.selection import Subject, choose, read_strided
from spoco_blocks.stages.report.wording import DECIDED, STAGES, TERMS
from spoco_blocks.stages.sources import open_like, open_source
from spoco_blocks.volumes import Volume, read_instances

Ran = dict[str, list[Manifest]]

_BLACK, _WHITE = 0.5, 99.8
_COLUMNS = ("z0", "y0", "x0", "z1", "y1", "x1")


def gather(layout: Layout, job: ReportJob) -> ReportContent:
    """Read everything that the report shows; of the volumes never more than a bounded part."""
    results = layout.segmentation(job.segmentation)
    ran = _manifests(layout, job)
    raw = open_source(job.volume.raw, job.volume.voxel_size_nm)
    objects = _objects(results.objects)
    scores, scored = _scores(results, ran, raw)
    picture, notes = _picture(job, results, raw, objects, scored)
    every = [manifest for manifests in ran.values() for manifest in manifests]
    newest = max(every, key=lambda manifest: manifest.finished, default=None)
    return ReportContent(
        segmentation=job.segmentation,
        volume=job.volume.volume,
        model=job.model,
        shape=raw.meta.shape,
        voxel_size_nm=raw.meta.voxel_size_nm,
        independent_images=raw.meta.independent_images,
        picture=picture,
        scored=scored,
        scores=scores,
        curves=_curves(layout.model(job.model).curves),
        objects=objects,
        stages=[_time(stage, manifests) for stage, manifests in ran.items()],
        costs=gather_costs(layout, job.segmentation, ran),
        settings=_settings(ran, job),
        decided=_decided(ran),
        versions=_versions(newest),
        provenance={stage: manifests[0].digest for stage, manifests in ran.items()},
        seams=ran["stitch"][0].result.get("seams") if "stitch" in ran else None,
        recut=ran["recut"][0].result if "recut" in ran else None,
        notes=[*dict.fromkeys(note for manifest in every for note in _warnings(manifest)), *notes],
        finished=newest.finished if newest else "",
        stores=(*_raw_store(ran, job, raw), results.segments),
    )


def _manifests(layout: Layout, job: ReportJob) -> Ran:
    """Manifests by stage, those of the shards where a stage was cut; a stage that did not run is left out."""
    results = layout.segmentation(job.segmentation)
    ran: Ran = {}
    for stage in STAGES:
        if stage == "labels":
            paths = [layout.volume(job.volume.volume).manifest]
        elif stage == "train":
            paths = [layout.model(job.model).manifest]
        else:
            shards = results.manifest(stage, 0).parent.glob("shard-*.json")
            paths = sorted(shards, key=lambda path: int(path.stem.split("-")[1])) or [results.manifest(stage)]
        found = [Manifest.read(path) for path in paths if path.exists()]
        if found:
            # an earlier run with more shards leaves manifests behind, which have another digest
            ran[stage] = [manifest for manifest in found if manifest.digest == found[0].digest]
    return ran


def _raw_store(ran: Ran, job: ReportJob, raw: Volume) -> list[str]:
    """Where viewers find the raw data with levels: in a copy of the volume as it is planned now, or where they are."""
    copied, planned = (ran[stage][0] if stage in ran else None for stage in ("raw_pyramid", "plan"))
    if copied is not None and planned is not None and copied.inputs["plan"] == planned.digest:
        return [copied.result["uri"]]
    size = raw.meta.voxel_size_nm
    own = None if size is None else own_pyramid(job.volume.raw, size)
    return [] if own is None else [own]


def _time(stage: str, manifests: list[Manifest]) -> StageTime:
    seconds = tuple(manifest.seconds for manifest in manifests)
    return StageTime(stage, max(seconds), seconds if len(seconds) > 1 else ())


def _settings(ran: Ran, job: ReportJob) -> dict[str, Any]:
    jobs = {
        STAGES[stage]: manifests[0].result["job"] for stage, manifests in ran.items() if "job" in manifests[0].result
    }
    return jobs or {"Report": job.model_dump(mode="json")}


def _decided(ran: Ran) -> dict[str, str]:
    found = {name: value for manifests in ran.values() for name, value in manifests[0].result.items()}
    return {text: f"{found[name]:.4g}" if isinstance(found[name], float) else str(found[name])
            for name, text in DECIDED.items() if found.get(name) is not None}  # fmt: skip


def _versions(manifest: Manifest | None) -> dict[str, str]:
    if manifest is None:
        return {}
    machine = dict(manifest.machine)
    packages = machine.pop("packages", {})
    return {name: str(value) for name, value in {**packages, **machine}.items()}


def _warnings(manifest: Manifest) -> list[str]:
    return [str(note) for note in manifest.result.get("warnings") or []]


def _scores(results: SegmentationResults, ran: Ran, raw: Volume) -> tuple[dict[str, Any] | None, Box | None]:
    """Scores when there are any, and the scored region when it is not the whole volume."""
    if not results.scores.exists():
        return None, None
    scores = json.loads(results.scores.read_text())
    if "ap50" not in scores:
        return None, None
    evaluated = ran["evaluate"][0].result if "evaluate" in ran else {}
    if "region" not in evaluated:
        return scores, None
    start, stop = evaluated["region"]
    box = Box(triple(start), triple(stop))
    return scores, None if box == Box.of_shape(raw.meta.shape) and not evaluated.get("images") else box


def _objects(path: Path) -> ObjectTable:
    if not path.exists():
        return ObjectTable.empty()
    table = pq.read_table(path)

    def columns(*names: str) -> NDArray[Any]:
        return np.stack([table[name].to_numpy() for name in names], axis=1)

    return ObjectTable(
        id=table["id"].to_numpy(),
        voxels=table["voxels"].to_numpy(),
        box=columns(*_COLUMNS),
        centroid_nm=columns(*(f"centroid_{axis}_nm" for axis in "zyx")),
        touches_border=table["touches_border"].to_numpy(),
    )


def _curves(path: Path) -> list[tuple[int, dict[str, float]]]:
    """Rows of the learning curves; a model that was given as a checkpoint has none."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = [dict(row) for row in csv.DictReader(file)]
    curves = []
    for row in rows:
        iteration = int(float(row.pop("iteration")))
        values = {name: float(text) if text else math.nan for name, text in row.items()}
        terms = [values[name] for name in TERMS if math.isfinite(values.get(name, math.nan))]
        curves.append((iteration, {"loss": sum(terms), **values} if terms else values))
    return curves


def _picture(
    job: ReportJob, results: SegmentationResults, raw: Volume, objects: ObjectTable, scored: Box | None
) -> tuple[Picture | None, list[str]]:
    """Read the part that is shown, and say what is wrong with it at a glance."""
    segments = _stored(results.segments)
    if segments is None:
        return None, ["The segmentation is not there, so no slices are shown."]
    box, step = choose(_subject(raw, objects, scored))
    foreground, embeddings = _stored(results.foreground), _stored(results.embeddings)
    probability = None if foreground is None else read_strided(foreground, box, step).astype(np.float32) / 255
    colours = None
    if embeddings is not None:
        colours = embedding_rgb(read_strided(embeddings, box, step), None if probability is None else probability > 0.5)
    truth, notes = _truth(job, raw, box, step)
    picture = Picture(
        box=box,
        step=step,
        raw=_grey(read_strided(raw, box, step)),
        segments=read_strided(segments, box, step),
        truth=truth,
        embedding_rgb=colours,
        foreground=probability,
    )
    return picture, [*notes, *_alarms(probability, objects)]


def _subject(raw: Volume, objects: ObjectTable, scored: Box | None) -> Subject:
    extent = np.median(objects.box[:, 3:] - objects.box[:, :3], axis=0).tolist() if len(objects) else [1.0] * 3
    centre = scored or Box.of_shape(raw.meta.shape)
    return Subject(
        shape=raw.meta.shape,
        voxel_size=raw.meta.voxel_size_nm or (1.0, 1.0, 1.0),
        independent_images=raw.meta.independent_images,
        object_extent=(extent[0], extent[1], extent[2]),
        centre=triple((a + b) // 2 for a, b in zip(centre.start, centre.stop, strict=True)),
    )


def _stored(uri: str) -> Volume | None:
    """Open one of the results; None where the stage that writes it streamed it, or did not run."""
    try:
        return open_source(Source(uri=uri))
    except VolumeNotFoundError:
        return None


class _Instances:
    """Label ids as a volume, unique over independent images."""

    def __init__(self, volume: Volume) -> None:
        self.uri, self.meta, self._volume = volume.uri, volume.meta, volume

    def read(self, box: Box) -> NDArray[np.uint64]:
        return read_instances(self._volume, box)

    def write(self, box: Box, voxels: NDArray[Any]) -> None:
        raise VolumeError(f"{self.uri} is only read.")


def _truth(job: ReportJob, raw: Volume, box: Box, step: tuple[int, int, int]) -> tuple[NDArray[Any] | None, list[str]]:
    if job.truth is None:
        return None, []
    try:
        return read_strided(_Instances(open_like(job.truth, raw, "truth")), box, step), []
    except (VolumeError, VolumeNotFoundError) as error:
        return None, [f"The truth cannot be shown: {error}"]


def _grey(voxels: NDArray[Any]) -> NDArray[np.float32]:
    """Scale what is shown to 0 … 1, channels averaged."""
    values = voxels.astype(np.float32)
    values = values.mean(axis=0) if values.ndim == 4 else values
    low, high = np.percentile(values[np.isfinite(values)], (_BLACK, _WHITE)) if values.size else (0, 1)
    scaled: NDArray[np.float32] = (values - np.float32(low)) / np.float32(max(high - low, 1e-6))
    return np.clip(scaled, 0, 1)


def _alarms(probability: NDArray[Any] | None, objects: ObjectTable) -> list[str]:
    notes = []
    if probability is not None and probability.size:
        share = 100 * float((probability > 0.5).mean())
        if share > 99:
            notes.append(
                f"{share:.1f} % of the part that is shown is foreground. If there is background in it, the network "
                "has not learnt what background is: annotate some, and train again."
            )
        if share < 1:
            notes.append(
                f"Only {share:.1f} % of the part that is shown is foreground. If there are objects in it, the network "
                "does not see them: annotate more objects like them, or train longer."
            )
    if not len(objects):
        notes.append("No objects were found.")
    return notes
