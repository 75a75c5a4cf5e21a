"""Neuroglancer in a browser that nobody sees: what it reads of the files it is given, and what it draws."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
# WebGL 2 on the processor; a browser in a container has neither a sandbox nor much shared memory.
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-dev-shm-usage", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--no-first-run", "--window-size=800,600",
)  # fmt: skip
# Nothing but the layers.
BARE = {
    "showAxisLines": False, "showScaleBar": False, "showDefaultAnnotations": False,
    "crossSectionBackgroundColor": "#000000", "projectionBackgroundColor": "#000000",
}  # fmt: skip
PATIENCE_S = 60


class Neuroglancer:
    """One viewer, shown one state after the other."""

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer

    def show(self, state: dict[str, Any]) -> None:
        """Show a state."""
        self._viewer.set_state(state)

    def info(self, layer: str) -> dict[str, Any]:
        """Give what is known of a layer's volume; an error says why it cannot be opened."""
        return self._viewer.volume_info(layer).result(PATIENCE_S).to_json()

    def voxels(self, layer: str) -> NDArray[Any]:
        """Read a whole image layer, chunk by chunk, through the browser."""
        info = self._viewer.volume_info(layer).result(PATIENCE_S)
        assert list(info.lower_bound) == [0] * info.rank
        counts = [-(-stop // edge) for stop, edge in zip(info.upper_bound, info.chunk_shape, strict=True)]
        found = np.zeros(np.multiply(counts, info.chunk_shape), info.data_type)
        for place in product(*map(range, counts)):
            chunk = self._viewer._volume_chunk(layer, info, list(place)).result(PATIENCE_S)
            start = np.multiply(place, info.chunk_shape)
            found[tuple(slice(a, a + n) for a, n in zip(start, chunk.shape, strict=True))] = chunk
        return found[tuple(map(slice, info.upper_bound))]

    def picture(self, width: int, height: int) -> NDArray[np.uint8]:
        """Wait until all is loaded, and give what is drawn: (height, width, rgb)."""
        taken: list[bytes] = []
        # In a thread of its own: it waits for ever for what cannot be loaded.
        thread = threading.Thread(
            target=lambda: taken.append(self._viewer.screenshot(size=[width, height]).screenshot.image), daemon=True
        )
        thread.start()
        thread.join(PATIENCE_S)
        assert taken, "neuroglancer did not come to an end with loading"
        return np.asarray(Image.open(io.BytesIO(taken[0])).convert("RGB"))


@contextmanager
def neuroglancer_browser() -> Iterator[Neuroglancer]:
    """Start the browser; skips the test where there is none."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser to show neuroglancer in; one of {', '.join(BROWSERS)} has to be installed")
    neuroglancer = pytest.importorskip("neuroglancer", reason="the Python package neuroglancer is not installed")
    viewer = neuroglancer.Viewer()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [program, *OPTIONS, f"--user-data-dir={profile}", str(viewer)]
        # Some systems have a script of this name, which the browser would outlive: all of the group is ended.
        browser = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            yield Neuroglancer(viewer)
        finally:
            os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()
            neuroglancer.stop()
