"""Which code decodes chunks: Rust (zarrs) where it is installed and safe, else plain zarr. The bytes read are the same.

Writing always takes plain zarr: it writes a file beside the chunk and renames it, while zarrs writes in place, so that
a killed job would leave a torn shard that cannot even be overwritten. A forked child takes plain zarr as well: the
threads of zarrs do not survive a fork, and the child would wait for them for ever.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import zarr

PLAIN = "zarr.core.codec_pipeline.BatchedCodecPipeline"
FAST = "zarrs.ZarrsCodecPipeline"

_reader = FAST if find_spec("zarrs") else PLAIN
# zarr's configuration is global to the process: without the lock a writer could be opened with the reader's pipeline
_opening = threading.Lock()


def _after_fork() -> None:
    global _reader, _opening  # noqa: PLW0603
    _reader = PLAIN
    _opening = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def codec_pipeline(*, fast: bool) -> Iterator[None]:
    """Arrays opened inside are decoded by zarrs when ``fast`` and when it is safe, else by plain zarr."""
    with _opening, zarr.config.set({"codec_pipeline.path": _reader if fast else PLAIN}):
        yield
