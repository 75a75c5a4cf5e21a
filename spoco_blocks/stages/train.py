"""Stage `train`: from annotated objects to a checkpoint, with learning curves."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from spoco_blocks.engine.layout import Layout, ModelResults
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.grid import Box, triple
from spoco_blocks.learn.checkpoint import Checkpoint, weights_digest
from spoco_blocks.learn.crops import TrainingVolume, choose_patch, fit_patch
from spoco_blocks.learn.curves import Curves
from spoco_blocks.learn.device import choose_device
from spoco_blocks.learn.intensity import Normalisation
from spoco_blocks.learn.network import ISOTROPY, plan_network
from spoco_blocks.learn.objective import Objective
from spoco_blocks.learn.supervision import Supervision
from spoco_blocks.learn.train import Part, Training
from spoco_blocks.settings.jobs import LabelsJob, TrainJob, digest
from spoco_blocks.stages.check import check_alike
from spoco_blocks.stages.pseudo import add_pseudo_labels, read_teaching, start_from_teacher
from spoco_blocks.stages.sources import check_volume, chosen_part, open_like, shell_voxels

log = logging.getLogger(__name__)

VERSION = 1
LINES = 20
VALIDATIONS = 10


def run_train(job: TrainJob, layout: Layout, threads: int) -> Manifest:
    """Train a model.

    Raises
    ------
    VolumeError
        When volumes do not go together.
    LabelsError
        When they hold too little to learn from.
    TrainingError
        When training diverges.
    """
    results = layout.model(job.model)
    sources = [Manifest.read(layout.volume(volume.volume).manifest) for volume in job.volumes]
    inputs = {f"labels/{v.volume}": s.digest for v, s in zip(job.volumes, sources, strict=True)}
    taught = read_teaching(job, layout)
    inputs |= {f"agree/{volume}": manifest.digest for volume, manifest in taught.items()}
    watch = Stopwatch("train", digest("train", VERSION, job.model_dump(mode="json"), inputs), inputs)
    training, scale_nm, length_nm = prepare(job, sources, layout, threads)
    plan, precision = training.f.plan, "bfloat16" if training.bfloat16 else "float32"
    log.info("patch %s, coordinates over %s nm, halo %s, %s", training.patch, scale_nm, plan.halo, precision)
    final = optimise(training, job.training.iterations, results)
    checkpoint = Checkpoint(
        plan=plan,
        voxel_size_nm=triple_of_floats(sources[0].result["voxel_size_nm"]),
        planar=sources[0].result["planar"],
        coordinate_scale_nm=scale_nm,
        iterations=job.training.iterations,
        settings=job.model_dump(mode="json"),
        weights={name: tensor.cpu() for name, tensor in training.f.state_dict().items()},
        weights_ema={name: tensor.cpu() for name, tensor in training.g.state_dict().items()},
    )
    checkpoint.save(results.checkpoint)
    result = {
        "job": job.model_dump(mode="json"),
        "patch": training.patch,
        "halo": plan.halo,
        "stride": plan.stride,
        "coordinate_scale_nm": scale_nm,
        "object_length_nm": length_nm,
        "precision": precision,
        "device": training.device,
        "final": final,
        "pseudo_objects": {volume: manifest.result["kept"] for volume, manifest in taught.items()},
        "warnings": [
            *alarms(final, job.training.loss.pull),
            *(warning for manifest in taught.values() for warning in manifest.result["warnings"]),
        ],
    }
    return watch.finish(results.manifest, result, weights_digest(checkpoint))


def prepare(
    job: TrainJob, sources: list[Manifest], layout: Layout, threads: int
) -> tuple[Training, float | None, float]:
    """Plan network and patch; give the training, the coordinates' scale and the objects' length, both in nm."""
    first = sources[0].result
    planar, voxel_size_nm = first["planar"], triple_of_floats(first["voxel_size_nm"])
    plan = plan_network(
        voxel_size_nm,
        in_channels=first["channels"],
        embedding_channels=job.network.embedding_channels,
        width=job.network.width,
        levels=job.network.levels,
        affinities=job.network.affinities,
        planar=planar,
    )
    length_nm = float(np.median([source.result["object_length_nm"] for source in sources]))
    parts = [
        open_part(volume, source, layout, voxel_size_nm) for volume, source in zip(job.volumes, sources, strict=True)
    ]
    parts = add_pseudo_labels(job, parts, layout)
    for volume, part in zip(job.volumes, parts, strict=True):
        check_alike(job.model, job.volumes[0].volume, parts[0].volume.raw, volume.volume, part.volume.raw)
    scale_nm = coordinate_scale(job.training.coordinates, length_nm)
    radius_nm = job.training.loss.push_radius
    objective = Objective(
        job.training.loss,
        None if scale_nm is None else in_voxels(scale_nm, voxel_size_nm, planar),
        None if radius_nm is None else in_voxels(radius_nm, voxel_size_nm, planar),
        plan.offsets,
    )
    wanted = job.training.patch_voxels or choose_patch(length_nm, voxel_size_nm, planar)
    if planar:
        wanted = triple((1, *wanted[1:]))
    patch = triple(
        min(extents) for extents in zip(*(fit_patch(wanted, plan.stride, part.training) for part in parts), strict=True)
    )
    training = Training(parts, plan, objective, patch, job.training, choose_device(threads))
    start_from_teacher(job, training, layout)
    return training, scale_nm, length_nm


def open_part(job: LabelsJob, source: Manifest, layout: Layout, voxel_size_nm: tuple[float, float, float]) -> Part:
    """Open one training volume with what stage `labels` found."""
    raw, labels, region = check_volume(job)
    assert labels is not None
    assert job.labels is not None
    found, result = layout.volume(job.volume), source.result
    objects = pq.read_table(found.objects).to_pydict()
    anchors = pq.read_table(found.anchors).to_pydict()
    positions = np.stack([np.array(anchors[axis], np.int64) for axis in "zyx"], 1).reshape(-1, 3)
    owner = np.array(anchors["id"], np.uint64)
    training = box_of(result["training"])
    inside = np.logical_and(positions >= training.start, positions < training.stop).all(1)
    kept = np.array([i for i, a in zip(objects["id"], objects["annotated"], strict=True) if a], np.uint64)
    finest = min(voxel_size_nm[1:] if raw.meta.independent_images else voxel_size_nm)
    z, y, x = (size <= ISOTROPY * finest for size in voxel_size_nm)
    isotropic = (z and not raw.meta.independent_images, y, x)
    supervision = Supervision(
        labels=labels,
        kept=np.sort(kept),
        region=region,
        background=None if job.labels.background is None else open_like(job.labels.background, raw, "background mask"),
        ignore=None if job.labels.ignore is None else open_like(job.labels.ignore, raw, "ignore mask"),
        dense=job.labels.dense,
        background_fraction=job.labels.background_fraction,
        shell=shell_voxels(job.labels, isotropic),
        seed=job.labels.seed,
    )
    volume = TrainingVolume(
        raw=raw,
        normalisation=Normalisation(tuple(result["intensity_low"]), tuple(result["intensity_high"])),
        supervision=supervision,
        anchors={int(i): positions[(owner == i) & inside] for i in np.unique(owner[inside])},
        images=chosen_part(job.labels, raw, independent=raw.meta.independent_images)[1],
    )
    validation = None if result["validation"] is None else box_of(result["validation"])
    return Part(volume, training, validation, isotropic, voxel_size_nm)


def optimise(training: Training, iterations: int, results: ModelResults) -> dict[str, float]:
    """Run all steps, speak now and then, and give the means of the last tenth."""
    start = time.monotonic()
    with Curves(results.curves, results.tensorboard) as curves:
        for iteration in range(1, iterations + 1):
            values = training.step()
            if iteration % max(1, iterations // VALIDATIONS) == 0:
                values |= {f"validation_{name}": value for name, value in training.validate().items()}
            curves.add(iteration, values)
            if iteration % max(1, iterations // LINES) == 0:
                left = (time.monotonic() - start) / iteration * (iterations - iteration)
                log.info(
                    "iteration %d of %d, %.0f s left: %s",
                    iteration,
                    iterations,
                    left,
                    curves.summary(iterations // LINES),
                )
                curves.write()
        return curves.means(iterations // 10)


def alarms(means: dict[str, float], pull_weight: float) -> list[str]:
    """Say what a user should know about how training ended."""
    found = []
    if "foreground" not in means:
        found.append(
            "No patch held known background, so the foreground was not learnt. Annotate some background, or keep "
            "labels.shell_voxels above 0."
        )
    if means.get("pull", 0.0) > 0.5 * pull_weight > 0:
        found.append("The embeddings of single objects stayed spread out (pull above 0.5): train longer.")
    return found


def coordinate_scale(setting: float | str, object_length_nm: float) -> float | None:
    """Give the length in nm over which position adds 1 to the embedding: a quarter of the objects' length."""
    if setting == "none":
        return None
    return object_length_nm / 4 if setting == "auto" else float(setting)


def in_voxels(length_nm: float, voxel_size_nm: tuple[float, float, float], planar: bool) -> tuple[float, float, float]:
    """Give a length in voxels along z, y, x; endless across independent images."""
    z, y, x = (length_nm / size for size in voxel_size_nm)
    return (float("inf") if planar else z), y, x


def box_of(corners: Any) -> Box:
    """Read a box back from a manifest."""
    start, stop = corners
    return Box(triple(start), triple(stop))


def triple_of_floats(values: Any) -> tuple[float, float, float]:
    """Read three floats back from a manifest."""
    z, y, x = values
    return float(z), float(y), float(x)
