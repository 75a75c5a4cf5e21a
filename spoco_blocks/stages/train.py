"""Stage `train`: from annotated objects to a checkpoint, with learning curves."""

from __future__ import annotations

import logging
import time

from spoco_blocks.engine.layout import Layout, ModelResults
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.learn.checkpoint import Checkpoint, weights_digest
from spoco_blocks.learn.curves import Curves
from spoco_blocks.learn.train import Training
from spoco_blocks.settings.jobs import TrainJob, digest
from spoco_blocks.stages.parts import model_voxel_size, prepare
from spoco_blocks.stages.pseudo import read_teaching

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
        voxel_size_nm=model_voxel_size(job, sources),
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
