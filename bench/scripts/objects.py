"""``objects.py generate|write FOLDER SEGMENTS``: planes and table of objects of many segments; prints JSON.

Blocks of 16³ voxels hold 100 fragments each; those of two blocks that follow each other along x are one object. A tenth
of the fragments touch no other.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from decide import watch

from spoco_blocks.engine.ledger import Ledger, Records
from spoco_blocks.grid import Block, BlockGrid
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.measured import measure
from spoco_blocks.stages.output import StoredOutput
from spoco_blocks.stages.stitch.objects import Geometry, write_objects
from spoco_blocks.stages.stitch.seams import count_cuts, load_planes

CHANNELS, EDGE, IN_BLOCK, ALONE = 8, 16, 100, 90
SOURCE = Embedded(StoredOutput(Source(uri="-"), Source(uri="-"), None, CHANNELS, 0), 0.5, None)


def grid_of(segments: int) -> BlockGrid:
    """Give the blocks: an even number along each axis."""
    side = 2 * round((2 * segments / IN_BLOCK) ** (1 / 3) / 2)
    return BlockGrid((side * EDGE,) * 3, (EDGE,) * 3)


def record_of(block: Block, usual: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Give the record of a block: all are alike, but for where they are and for their embeddings."""
    origin, voxels = np.array(block.inner.start), usual["voxels"]
    means = rng.normal(size=(IN_BLOCK, CHANNELS)) * 4
    means[:, :3] += origin / EDGE
    return usual | {
        "start": usual["start"] + origin,
        "stop": usual["stop"] + origin,
        "positions": usual["positions"] + voxels[:, None] * origin,
        "sums": means * voxels[:, None],
        "coreless": rng.random(IN_BLOCK) < 0.1,
        "intensities": rng.random((IN_BLOCK, 1)) * voxels[:, None],
    }


def generate(folder: Path, segments: int) -> dict[str, int]:
    """Write the records of all blocks."""
    grid, rng = grid_of(segments), np.random.default_rng(0)
    z, y, x = np.indices((EDGE,) * 3)
    labels = (1 + z * 5 // EDGE * 20 + y * 5 // EDGE * 4 + x * 4 // EDGE).astype(np.uint32)
    embeddings, foreground = np.zeros((CHANNELS, *labels.shape), np.float32), np.full(labels.shape, 255, np.uint8)
    usual = measure(labels, labels, embeddings, foreground, grid.block(0), SOURCE)
    usual["pairs"] = usual["pairs"][(usual["pairs"] <= ALONE).all(axis=1)]
    with Ledger(folder / "records", "shard-0", "bench") as ledger:
        for block in grid:
            ledger.commit(block.index, record_of(block, usual, rng))
    return {"blocks": len(grid), "segments": len(grid) * IN_BLOCK // 2}


def lookup_of(folder: Path, grid: BlockGrid) -> np.ndarray:
    """Give the segment of every fragment, in a file that is mapped."""
    fragments = np.arange(len(grid) * IN_BLOCK)
    segments = fragments // (2 * IN_BLOCK) * IN_BLOCK + fragments % IN_BLOCK + 1
    np.save(folder / "lookup.npy", np.concatenate([[0], segments]).astype(np.uint32))
    return np.load(folder / "lookup.npy", mmap_mode="r")


def write(folder: Path, segments: int) -> dict[str, float | str]:
    """Load the planes, count what is cut, and write the table of objects."""
    grid = grid_of(segments)
    records, lookup = Records(folder / "records", "bench", len(grid)), lookup_of(folder, grid)
    offsets = np.arange(len(grid) + 1) * IN_BLOCK
    held, stop = [0], threading.Event()
    watcher = threading.Thread(target=watch, args=(held, stop))
    watcher.start()
    start = time.perf_counter()
    planes = load_planes(records, grid, offsets, planar=False, folder=folder / "planes")
    seams = count_cuts(planes, lookup, folder / "planes")
    counted = time.perf_counter()
    geometry = Geometry(grid, (500.0, 200.0, 100.0), planar=False)
    rows = write_objects(folder / "objects.parquet", records, lookup, offsets, geometry, seams, folder / "objects")
    seconds = time.perf_counter() - counted
    stop.set()
    watcher.join()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "rows": rows, "planes_seconds": counted - start, "objects_seconds": seconds,
        "processor_seconds": time.process_time(), "held_mib": held[0] / 1024,
        "peak_mib": int(status["VmHWM"].split()[0]) / 1024, "digest": digest(folder / "objects.parquet"),
    }  # fmt: skip


def digest(path: Path) -> str:
    """Give a digest of the table's values, however they are cut into row groups."""
    found = hashlib.sha256()
    file = pq.ParquetFile(path)
    for name in file.schema_arrow.names:
        found.update(file.read([name]).column(0).to_numpy().tobytes())
    return found.hexdigest()[:16]


if __name__ == "__main__":
    what, where, count = sys.argv[1], Path(sys.argv[2]), int(float(sys.argv[3]))
    print(json.dumps({"generate": generate, "write": write}[what](where, count)))
