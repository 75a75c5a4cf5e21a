"""Raw data of several channels in 3D: each is normalised for itself, learnt from, and predicted block by block."""

from __future__ import annotations

import json

import numpy as np
import pytest
from phantoms import VOXEL_SIZE_NM, ball_configuration, balls
from pipeline import Trained

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.grid import Box
from spoco_blocks.learn.checkpoint import load_checkpoint
from spoco_blocks.learn.intensity import Normalisation
from spoco_blocks.learn.predict import predict
from spoco_blocks.settings import jobs, parse_settings
from spoco_blocks.stages.labels import run_labels
from spoco_blocks.stages.train import run_train
from spoco_blocks.volumes import create_zarr, open_volume

SHAPE = (40, 48, 64)
WHOLE = Box.of_shape(SHAPE)


@pytest.fixture(scope="module")
def fluorescence(tmp_path_factory):
    """Balls in the dim channel; the bright one holds nothing but noise."""
    folder = tmp_path_factory.mktemp("channels")
    tree = ball_configuration(folder, iterations=120)
    noise = np.random.default_rng(0).integers(20_000, 60_000, SHAPE).astype(np.uint16)
    raw = np.stack([noise, balls()[0].astype(np.uint16)])
    uri = str(folder / "two.zarr")
    create_zarr(
        uri, shape=SHAPE, dtype="uint16", chunk_shape=(20, 24, 32), channels=2, voxel_size_nm=VOXEL_SIZE_NM
    ).write(WHOLE, raw)
    tree["volumes"]["balls"]["raw"]["uri"] = uri
    layout, settings = Layout(folder / "results"), parse_settings(tree)
    run_labels(jobs.labels_job(settings, "balls"), layout.volume("balls"), Execution())
    run_train(jobs.train_job(settings, "balls"), layout, threads=1)
    return Trained(layout, tree), raw


def test_objects_are_found_in_a_dim_channel_beside_a_bright_one(fluorescence):
    trained, raw = fluorescence
    found = Manifest.read(trained.layout.volume("balls").manifest).result
    assert (found["axes"], found["channels"]) == ("czyx", 2)
    np.testing.assert_allclose(found["intensity_low"], np.percentile(raw, 1, axis=(1, 2, 3)), rtol=0.05)
    np.testing.assert_allclose(found["intensity_high"], np.percentile(raw, 99, axis=(1, 2, 3)), rtol=0.05)

    results = trained.segment("balls")
    assert json.loads(results.scores.read_text())["ap50"] > 0.8
    normalised = Normalisation(tuple(found["intensity_low"]), tuple(found["intensity_high"]))(raw)
    network = load_checkpoint(trained.layout.model("balls").checkpoint).network()
    embeddings = predict(network, normalised).embeddings
    stored = open_volume(results.embeddings).read(WHOLE)
    np.testing.assert_allclose(stored, embeddings.astype(np.float16), rtol=2e-3, atol=2e-3)
