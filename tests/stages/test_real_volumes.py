"""The examples fit the real volumes that they name."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.stats import mode
from skimage.measure import block_reduce

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout
from spoco_blocks.settings import jobs, load_settings
from spoco_blocks.settings.sections import LabelSettings, Settings
from spoco_blocks.stages.check import check_sources
from spoco_blocks.stages.labels import run_labels

EXAMPLES = Path(__file__).parents[2] / "config/examples"

pytestmark = pytest.mark.data


def moved(settings: Settings, folder: Path) -> Settings:
    """Give the same configuration with its data in another folder."""
    return Settings.model_validate_json(settings.model_dump_json().replace('"uri":"data/', f'"uri":"{folder}/'))


def most_frequent(ids: np.ndarray, factor: tuple[int, ...]) -> np.ndarray:
    """Give the most frequent id of each window; the smallest of equals."""
    return block_reduce(ids, factor, lambda windows, axis: mode(windows.reshape(*windows.shape[:3], -1), axis=-1).mode)


def counted(folder: Path, labels: LabelSettings) -> tuple[int, int]:
    """Count all objects, and those that are large enough, straight from the file."""
    name, dataset = labels.uri.removeprefix("data/").split("/")
    with h5py.File(folder / name) as file:
        array = file[dataset][()]
    if labels.downscale:
        array = most_frequent(array, labels.downscale)
    stop = (labels.region and labels.region.stop_voxels) or (None,) * 3
    array = array[tuple(slice(end) for end in stop)]
    images = array[:: labels.images.step] if labels.images else [array]
    sizes = np.concatenate([np.unique(image[image > 0], return_counts=True)[1] for image in images])
    return len(sizes), int((sizes >= labels.min_voxels).sum())


@pytest.mark.parametrize(
    ("name", "volume"),
    [("neurites", "neurites_train"), ("mitochondria", "mitochondria"), ("nuclei_2d", "nuclei_2d"), ("cells", "cells")],
)
def test_example(data_folder, tmp_path, name, volume):
    original = load_settings(EXAMPLES / f"{name}.yaml")
    settings = moved(original, data_folder)
    assert set(check_sources(jobs.check_job(settings))) == set(settings.volumes)
    found = run_labels(jobs.labels_job(settings, volume), Layout(tmp_path).volume(volume), Execution()).result
    labels = original.volumes[volume].labels
    objects, large = counted(data_folder, labels)
    assert found["objects"] == objects
    assert found["annotated"] == round(labels.keep_fraction * large)
    assert found["planar"] == (name == "nuclei_2d")
