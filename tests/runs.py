"""Small training runs on balls."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from phantoms import balls, store

from spoco_blocks.grid import Box
from spoco_blocks.learn.crops import Part, TrainingVolume
from spoco_blocks.learn.intensity import Normalisation
from spoco_blocks.learn.loader import Batch, Loader
from spoco_blocks.learn.network_plan import plan_network
from spoco_blocks.learn.objective import Objective
from spoco_blocks.learn.supervision import Supervision
from spoco_blocks.learn.train import Training
from spoco_blocks.settings.loss import LossSettings
from spoco_blocks.settings.training import TrainingSettings
from spoco_blocks.volumes import open_volume

PLAN = plan_network((1, 1, 1), in_channels=1, embedding_channels=4, width=4, levels=2, affinities=True, planar=False)
PATCH = (16, 16, 16)


def write_balls(folder: Path) -> None:
    """Write the volume of `open_balls`."""
    raw, labels = balls((32, 32, 32))
    store(folder / "raw.zarr", raw)
    store(folder / "labels.zarr", labels)


def open_balls(folder: Path, validation: bool = False, annotated: int = 3, dense: bool = False) -> list[Part]:
    """Open the balls; with a validation part, its lower half."""
    volume = open_volume(str(folder / "labels.zarr"))
    region = Box.of_shape(volume.meta.shape)
    labels = volume.read(region)
    ids = np.unique(labels)[1 : annotated + 1].astype(np.uint64)
    supervision = Supervision(volume, ids, region, None, None, dense, 0.3, (1, 1, 1), 0)
    anchors = {int(i): np.argwhere(labels == i) for i in ids}
    read = TrainingVolume(open_volume(str(folder / "raw.zarr")), Normalisation((40.0,), (190.0,)), supervision, anchors)
    return [Part(read, region, Box((0, 0, 0), (16, 32, 32)) if validation else None, (True, True, True))]


def training(iterations=25, group=None, **settings) -> Training:
    """Prepare a run; nothing is read."""
    chosen = {"learning_rate": 0.02, "precision": "float32"} | settings
    return Training(
        PLAN,
        Objective(LossSettings(), (4.0,) * 3, None, PLAN.offsets),
        PATCH,
        TrainingSettings(iterations=iterations, **chosen),
        "cpu",
        group=group,
    )


def loader(folder: Path, batch=1, rank=0, world=1) -> Loader:
    """Crops of the balls."""
    return Loader(
        partial(open_balls, folder), PATCH, batch=batch, centred=0.8, seed=0, workers=0, rank=rank, world=world
    )


def steps(run: Training, crops: Loader, stop: int) -> list[dict[str, float]]:
    """Train up to an iteration; give the values of each."""
    return [run.step(batch)[0] for batch in crops.batches(run.iteration, stop)]


def broken(batch: Batch) -> Batch:
    """Put one value into the raw data that is not finite."""
    raw = batch.raw.clone()
    raw[0, 0, 3, 3, 3] = torch.nan
    return Batch(raw, batch.labels)


def same(first: Training, second: Training) -> bool:
    """Tell whether two runs have the same weights, buffers and moments, bit for bit."""
    return all(equal(a, b) for a, b in zip(parts(first), parts(second), strict=True))


def parts(run: Training) -> list[object]:
    """List the weights, buffers and moments of a run."""
    moments = [value for state in run.optimizer.state_dict()["state"].values() for value in state.values()]
    return [*run.f.state_dict().values(), *run.g.state_dict().values(), *moments]


def equal(a, b) -> bool:
    """Compare tensors bit for bit."""
    return torch.equal(torch.as_tensor(a), torch.as_tensor(b))
