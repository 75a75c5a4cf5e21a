"""Whichever codec pipeline reads, the bytes are the same, and forked readers do not hang."""

from __future__ import annotations

import os
import signal

import pytest
import zarr
from test_zarr_array import PART, WHOLE, create, noise

from spoco_blocks.volumes import open_volume, pipeline


def test_every_pipeline_reads_the_same_bytes(tmp_path, monkeypatch):
    volume = create(tmp_path / "a.zarr", dtype="float16")
    volume.write(WHOLE, noise(WHOLE.shape, "float16"))
    fast = volume.read(PART)
    monkeypatch.setattr(pipeline, "_reader", pipeline.PLAIN)
    plain = open_volume(volume.uri).read(PART)
    assert fast.tobytes() == plain.tobytes() == noise(WHOLE.shape, "float16")[PART.slices].tobytes()


def test_zarrs_reads_where_it_is_installed_and_never_writes(tmp_path):
    pytest.importorskip("zarrs", reason="the optional codec pipeline is not installed")
    volume = create(tmp_path / "a.zarr")
    volume.write(WHOLE, noise(WHOLE.shape))
    volume.read(WHOLE)
    used = {mode: type(array.async_array.codec_pipeline).__name__ for (_, mode), array in volume._handles.items()}
    assert used == {"r": "ZarrsCodecPipeline", "r+": "BatchedCodecPipeline"}
    assert zarr.config.get("codec_pipeline.path") == pipeline.PLAIN


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_forked_readers_do_not_hang(tmp_path):
    volume = create(tmp_path / "a.zarr")
    volume.write(WHOLE, noise(WHOLE.shape))
    volume.read(WHOLE)
    child = os.fork()
    if not child:
        signal.alarm(20)
        same = (volume.read(PART) == noise(WHOLE.shape)[PART.slices]).all()
        same &= (open_volume(volume.uri).read(WHOLE) == noise(WHOLE.shape)).all()
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
