"""A batch depends on seed, iteration and place alone; workers change nothing, say what went wrong, and end with us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from phantoms import balls, store

from spoco_blocks.errors import TrainingError, VolumeError
from spoco_blocks.grid import Box
from spoco_blocks.learn.crops import Part, TrainingVolume
from spoco_blocks.learn.intensity import Normalisation
from spoco_blocks.learn.loader import Batch, Loader
from spoco_blocks.learn.supervision import Supervision
from spoco_blocks.volumes import open_volume

SHAPE = (24, 40, 40)
PATCH = (8, 16, 16)


def open_balls(folder: str) -> list[Part]:
    """Open two volumes, the second of which has voxels of twice the size."""
    return [_part(folder, 1.0), _part(folder, 2.0)]


def _part(folder: str, zoom: float) -> Part:
    region = Box.of_shape(SHAPE)
    labels = open_volume(f"{folder}/labels.zarr")
    supervision = Supervision(labels, np.arange(1, 9, dtype=np.uint64), region, None, None, False, 0.0, (1, 1, 1), 0)
    anchors = {1: np.array([[8, 8, 8]])}
    raw = open_volume(f"{folder}/raw.zarr")
    volume = TrainingVolume(raw, Normalisation((40.0,), (190.0,)), supervision, anchors, (zoom, zoom, zoom))
    return Part(volume, volume.resampling.inside(region), None, (True, True, True))


def open_nothing(folder: str) -> list[Part]:
    raise VolumeError(f"{folder}: got nothing, expected raw data; bring it here.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    place = tmp_path_factory.mktemp("loader")
    raw, labels = balls(SHAPE)
    store(place / "raw.zarr", raw)
    store(place / "labels.zarr", labels)
    return str(place)


def loader(folder, workers=0, batch=2, opener=open_balls, **settings) -> Loader:
    chosen = {"centred": 0.5, "seed": 3} | settings
    return Loader(partial(opener, folder), PATCH, batch=batch, workers=workers, **chosen)


def same(first: Batch, second: Batch) -> bool:
    return torch.equal(first.raw, second.raw) and torch.equal(first.labels, second.labels)


def test_batches_are_a_function_of_seed_iteration_and_place(folder):
    run = list(loader(folder).batches(0, 6))
    assert (run[0].raw.shape, run[0].labels.shape) == ((2, 1, *PATCH), (2, *PATCH))
    assert (run[0].raw.dtype, run[0].labels.dtype) == (torch.float32, torch.int32)
    resumed = list(loader(folder).batches(4, 6))
    assert all(same(a, b) for a, b in zip(run[4:], resumed, strict=True))
    assert not any(same(a, b) for i, a in enumerate(run) for b in run[:i])
    (other,) = loader(folder, seed=4).batches(0, 1)
    assert not same(run[0], other)


def test_ranks_draw_the_crops_of_one_larger_batch(folder):
    (together,) = loader(folder, batch=4).batches(7, 8)
    for rank in range(2):
        (mine,) = loader(folder, rank=rank, world=2).batches(7, 8)
        assert same(mine, Batch(together.raw[2 * rank : 2 * rank + 2], together.labels[2 * rank : 2 * rank + 2]))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_no_bit(folder, workers):
    expected = list(loader(folder).batches(0, 8))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    made = loader(folder, workers=workers)
    found = list(made.batches(0, 5))
    abandoned = made.batches(1, 8)
    next(abandoned)
    found += list(made.batches(5, 8))
    assert all(same(a, b) for a, b in zip(expected, found, strict=True))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_reach_the_user_as_they_are(folder, workers):
    with pytest.raises(VolumeError) as caught:
        list(loader(folder, workers, opener=open_nothing).batches(0, 2))
    assert type(caught.value) is VolumeError
    assert str(caught.value) == f"{folder}: got nothing, expected raw data; bring it here."


def kill_oneself(folder: str) -> list[Part]:
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def test_a_killed_worker_is_told_apart(folder):
    with pytest.raises(TrainingError, match="memory ran out"):
        list(loader(folder, 1, opener=kill_oneself).batches(0, 2))


def test_numbers_out_of_range_are_refused(folder):
    for settings in ({"batch": 0}, {"workers": -1}, {"rank": 2, "world": 2}, {"seed": -1}):
        with pytest.raises(TrainingError, match="batches need"):
            loader(folder, **settings)


PARENT = """
import os, sys, time
sys.path[:0] = {path!r}
import test_loader, torch.multiprocessing
if __name__ == "__main__":
    batches = test_loader.loader({folder!r}, workers=2).batches(0, 10**6)
    next(batches)
    print(flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are looked up in /proc")
def test_a_killed_parent_leaves_no_orphans(folder, tmp_path):
    script, mark = tmp_path / "parent.py", f"LOADER_TEST={tmp_path}"
    script.write_text(PARENT.format(path=sys.path, folder=folder))
    name, value = mark.split("=")
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, env=os.environ | {name: value}, stdout=subprocess.PIPE) as parent:
        parent.stdout.readline()
        assert len(marked(mark)) >= 4  # the parent, the fork server, two workers
        parent.kill()
    for _ in range(600):
        if not marked(mark):
            return
        time.sleep(0.1)
    left = marked(mark)
    for process in left:
        os.kill(process, signal.SIGKILL)
    pytest.fail(f"still running: {left}")


def marked(mark: str) -> list[int]:
    """Give the processes that were started with something in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            continue
    return found
