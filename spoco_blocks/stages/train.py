"""Stage `train`: from annotated objects to a checkpoint, with learning curves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.errors import TrainingError
from spoco_blocks.learn.checkpoint import Checkpoint, weights_digest
from spoco_blocks.learn.crops import Part
from spoco_blocks.learn.device import peak_memory_mb
from spoco_blocks.learn.distributed import Group, process_group
from spoco_blocks.learn.loader import Loader
from spoco_blocks.learn.recommend import Recommendation
from spoco_blocks.learn.resume import load_state
from spoco_blocks.learn.train import Training
from spoco_blocks.learn.validation import Validation
from spoco_blocks.settings.jobs import TrainJob, digest
from spoco_blocks.settings.training import TrainingSettings
from spoco_blocks.stages.prepare import model_voxel_size, prepare, smallest_object
from spoco_blocks.stages.pseudo import read_teaching, without_pseudo_labels
from spoco_blocks.stages.train_loop import TrainingRun, spacing

log = logging.getLogger(__name__)

VERSION = 4


def run_train(job: TrainJob, layout: Layout, threads: int, deadline: float | None = None) -> Manifest | None:
    """Train a model, or continue where an earlier start of the same job was stopped.

    Gives its manifest; None in all but the first of several processes.

    Raises
    ------
    VolumeError
        When volumes do not go together.
    LabelsError
        When they hold too little to learn from.
    TrainingError
        When training diverges, or was not started as `training.gpus` wants.
    TrainingStoppedError
        When it was told to stop.
    HandOverError
        When the deadline (Unix seconds) came before its end.
    """
    results = layout.model(job.model)
    sources = [Manifest.read(layout.volume(volume.volume).manifest) for volume in job.volumes]
    inputs = {f"labels/{v.volume}": s.digest for v, s in zip(job.volumes, sources, strict=True)}
    taught = read_teaching(job, layout)
    inputs |= {f"agree/{volume}": manifest.digest for volume, manifest in taught.items()}
    decisive = job.model_dump(mode="json", exclude={"training": set(TrainingSettings.ONLY_EXECUTION)})
    watch = Stopwatch("train", digest("train", VERSION, decisive, inputs), inputs)
    with process_group() as group:
        check_processes(job.training.gpus, group)
        if group.rank:
            logging.getLogger("spoco_blocks").setLevel(logging.WARNING)
        smallest = smallest_object(sources, model_voxel_size(job, sources))
        state = load_state(results.state, watch.identity)
        group.wait()
        training, scale_nm, length_nm, opened = prepare(
            job, sources, layout, max(1, threads // group.world), group, state
        )
        run = TrainingRun(
            training,
            make_loader(training, opened, threads),
            make_validation(training, opened, smallest) if group.rank == 0 else None,
            results,
            watch.identity,
            deadline,
        )
        if state is not None:
            run.restore(state)
        patch, halo, precision = training.patch, training.f.plan.halo, training.precision
        log.info("patch %s, coordinates over %s nm, halo %s, %s", patch, scale_nm, halo, precision)
        final = run.run()
        return finish(job, sources, run, final, watch, scale_nm, length_nm, taught) if group.rank == 0 else None


def check_processes(gpus: int, group: Group) -> None:
    """Refuse to train with another number of processes than was meant: the result would be another.

    Raises
    ------
    TrainingError
        When the numbers differ.
    """
    if gpus != group.world:
        raise TrainingError(
            f"training.gpus is {gpus}, but {group.world} process(es) were started; start with torchrun --standalone "
            f"--nproc-per-node {gpus} -m spoco_blocks.cli train ..., or set training.gpus to {group.world}."
        )


def make_loader(training: Training, open_parts: Callable[[], list[Part]], threads: int) -> Loader:
    """Give what reads the crops of this process."""
    settings, group = training.settings, training.group
    cores = threads // group.world
    workers = (min(8, cores - 1) if cores > 2 else 0) if settings.workers == "auto" else settings.workers
    return Loader(
        open_parts,
        training.patch,
        batch=settings.batch,
        centred=settings.object_patch_fraction,
        seed=settings.seed,
        workers=workers,
        rank=group.rank,
        world=group.world,
        pin=training.device == "cuda",
    )


def make_validation(
    training: Training, open_parts: Callable[[], list[Part]], smallest_voxels: int | None
) -> Validation:
    """Read what training is judged by, and say what that decides."""
    settings, stride = training.settings, training.f.plan.stride
    every = settings.validate_every or spacing(settings.iterations)
    batch = settings.batch * training.group.world
    parts = [without_pseudo_labels(part) for part in open_parts()]
    validation = Validation(parts, training.patch, stride, every, batch, smallest_voxels)
    if validation.selects:
        chosen = f"the network that is best by {validation.criterion} is kept"
    else:
        chosen = "too few to choose a network by: the last one is kept"
    log.info("%s on %d annotated objects: %s", validation.prefix, validation.objects, chosen)
    return validation


def finish(
    job: TrainJob,
    sources: list[Manifest],
    run: TrainingRun,
    final: dict[str, float],
    watch: Stopwatch,
    scale_nm: float | None,
    length_nm: float,
    taught: dict[str, Manifest],
) -> Manifest:
    """Write checkpoint and manifest."""
    training = run.training
    kept, advice = run.selection.iteration or training.iteration, run.recommend()
    checkpoint = make_checkpoint(job, sources, run, scale_nm, kept, advice)
    checkpoint.save(run.results.checkpoint)
    result = {
        "job": job.model_dump(mode="json"),
        "patch": training.patch,
        "halo": training.f.plan.halo,
        "stride": training.f.plan.stride,
        "coordinate_scale_nm": scale_nm,
        "object_length_nm": length_nm,
        "smallest_voxels": checkpoint.smallest_voxels,
        "precision": training.precision,
        "device": training.device,
        "processes": training.group.world,
        "recommended": asdict(advice),
        "final": final,
        "pseudo_objects": {volume: manifest.result["kept"] for volume, manifest in taught.items()},
        "warnings": [
            *alarms(final, job.training.loss.pull),
            *run.warnings(),
            *(warning for manifest in taught.values() for warning in manifest.result["warnings"]),
        ],
        **how_it_went(run, kept),
    }
    return watch.finish(run.results.manifest, result, weights_digest(checkpoint))


def make_checkpoint(
    job: TrainJob, sources: list[Manifest], run: TrainingRun, scale_nm: float | None, kept: int, advice: Recommendation
) -> Checkpoint:
    """Put the networks that are kept together with what whoever uses them must know."""
    assert run.validation is not None
    weights = {name: {key: t.cpu() for key, t in state.items()} for name, state in run.weights.items()}
    return Checkpoint(
        plan=run.training.f.plan,
        voxel_size_nm=model_voxel_size(job, sources),
        planar=sources[0].result["planar"],
        coordinate_scale_nm=scale_nm,
        clustering_kind=advice.kind,
        foreground_threshold=advice.foreground_threshold,
        smallest_voxels=run.validation.smallest_voxels,
        object_distance=advice.object_distance,
        iterations=kept,
        settings=job.model_dump(mode="json"),
        weights=weights["f"],
        weights_ema=weights["g"],
    )


def how_it_went(run: TrainingRun, kept: int) -> dict[str, Any]:
    """Say how long the network was trained, which one was kept and why, and what it took."""
    training, selection, clock = run.training, run.selection, run.clock
    assert run.validation is not None
    return {
        "iterations": training.iteration,
        "kept": {
            "iteration": kept,
            "by": run.validation.criterion if selection.iteration else "it is the last",
            "score": selection.kept if selection.iteration else None,
            "annotated_objects": run.validation.objects,
        },
        "iterations_per_second": round(clock.speed, 3),
        "waiting_fraction": round(clock.waiting_fraction, 4),
        "validation_seconds": round(clock.validation, 2),
        "peak_mb": peak_memory_mb(training.device),
        "lost_steps": training.guard.lost,
    }


def alarms(means: dict[str, float], pull_weight: float) -> list[str]:
    """Say what a user should know about how training ended."""
    found = []
    if "foreground" not in means:
        found.append(
            "No patch held known background, so the foreground was not learnt. Annotate some background, or keep "
            "labels.shell_voxels above 0; where there is no background at all, set foreground_threshold to 0."
        )
    if means.get("pull", 0.0) > 0.5 * pull_weight > 0:
        found.append("The embeddings of single objects stayed spread out (pull above 0.5): train longer.")
    return found
