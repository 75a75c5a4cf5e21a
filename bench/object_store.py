"""Embeddings of blocks written to S3 and read with a halo, against a local disk: through a server of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.frame import Claim, Contender, Report, Row, measure
from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.runner import Blocks
from spoco_blocks.engine.runner import run as run_blocks
from spoco_blocks.grid import Block, BlockGrid, Box
from spoco_blocks.volumes import Volume, create_zarr, open_volume

CHANNELS, EDGE, HALO, CHUNK = 16, 64, 16, 32
# Between a client and the store of its region.
DELAY_MS = 30
AT_ONCE = (1, 4)
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}  # fmt: skip


class WriteBlock:
    """Write what a network might say of a block."""

    def __init__(self, store: Volume) -> None:
        self.store = store

    def __call__(self, block: Block) -> dict[str, NDArray[np.generic]]:
        """Write one block."""
        values = np.random.default_rng(block.index).normal(size=(CHANNELS, *block.inner.shape))
        self.store.write(block.inner, values.astype(np.float16))
        return {}

    def memory_bytes(self, block: Block) -> int:
        """Numbers and what is stored of them."""
        return 12 * CHANNELS * block.inner.size


class ReadBlock(WriteBlock):
    """Read a block with its halo."""

    def __call__(self, block: Block) -> dict[str, NDArray[np.generic]]:
        """Read one block."""
        return {"sum": np.array(self.store.read(block.outer).astype(np.float64).sum())}


def contender(name: str, place: str, blocks: int, workers: int, number: Iterator[int]) -> Contender:
    """Write and read all blocks of a new store, several at once."""

    def work() -> NDArray[np.float16]:
        shape = (EDGE, EDGE * blocks // 2, EDGE * 2)
        store = create_zarr(
            f"{place}/{next(number)}.zarr", shape=shape, dtype="float16", channels=CHANNELS,
            chunk_shape=(CHUNK,) * 3, shard_shape=(EDGE,) * 3,
        )  # fmt: skip
        grid = BlockGrid(shape, (EDGE,) * 3, (HALO,) * 3)
        with tempfile.TemporaryDirectory() as folder:
            for task in (WriteBlock(store), ReadBlock(open_volume(store.uri))):
                run_blocks(
                    task, Blocks(grid, Path(folder) / type(task).__name__, "bench"), Execution("threads", workers)
                )
        found: NDArray[np.float16] = store.read(Box.of_shape((EDGE,) * 3))
        return found

    return Contender(name, work)


@contextmanager
def s3_bucket(delay_ms: float, refuse_every: int = 0) -> Iterator[str]:
    """Run a server that answers late; give a bucket of it."""
    import boto3

    script = Path(__file__).parent / "scripts/s3_server.py"
    with subprocess.Popen(
        [sys.executable, script, str(delay_ms), str(refuse_every)], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            os.environ.update(ENVIRONMENT | {"AWS_ENDPOINT_URL": server.stdout.readline().strip()})
            boto3.client("s3").create_bucket(Bucket="bench")
            yield "s3://bench"
        finally:
            server.terminate()


def run(quick: bool) -> Report:
    """Write and read blocks on S3 and on disk.

    Parameters
    ----------
    quick : bool
        Fewer blocks, once.

    Returns
    -------
    Report
        Blocks per second, written and read, and whether both stores hold the same.
    """
    blocks = 4 if quick else 16
    with s3_bucket(DELAY_MS) as bucket, tempfile.TemporaryDirectory() as folder:
        make: Callable[..., Contender] = partial(contender, blocks=blocks, number=count())
        places = {"S3": bucket, "disk": folder}
        ways = [make(f"{name} {n}", place, workers=n) for n in AT_ONCE for name, place in places.items()]
        found = measure(ways, repeats=1 if quick else 3)
    speed = {name: blocks / measured.median for name, measured in found.items()}
    rows = [Row(f"{n} at once", "blocks/s", speed[f"S3 {n}"], speed[f"disk {n}"], "disk") for n in AT_ONCE]
    first, last = (f"S3 {n}" for n in AT_ONCE)
    results = [measured.result for measured in found.values()]
    claims = [
        Claim("arrays that differ between stores", sum(not np.array_equal(results[0], r) for r in results), at_most=0),
        Claim("several blocks at once on S3 against one", speed[last] / speed[first], at_least=1.2),
    ]
    size = EDGE**3 * CHANNELS * 2 / 1e6
    return Report(
        rows,
        claims,
        [f"blocks of {size:.0f} MB; every request waits {DELAY_MS} ms; server and client share this machine"],
    )
