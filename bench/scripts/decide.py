"""``decide.py generate|decide FOLDER FRAGMENTS [BATCH]``: a stitching decision on tables on disk; prints JSON.

Fragments lie in blocks on a lattice, 100 in each. A fragment touches two others in its block, of other objects, and one
in the following block along z, y or x; an object reaches over up to three blocks. Three in a hundred fragments are
slivers of a few voxels with a poor mean.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
from numba import njit

from spoco_blocks.settings.segmentation import StitchingSettings
from spoco_blocks.stages.stitch.decision import decide, number_segments
from spoco_blocks.stages.stitch.islands import BATCH
from spoco_blocks.stages.stitch.tables import Column, Edges, Fragments

CHANNELS = 8
IN_BLOCK = 100
SPAN = 3
KINDS = {
    "weights": (np.int64, ()), "sums": (np.float64, (CHANNELS,)), "voxels": (np.int64, ()), "objects": (np.int64, ()),
    "pairs": (np.int64, (2,)), "contacts": (np.int64, ()), "same_block": (np.bool_, ()),
}  # fmt: skip


@njit
def random(key: int, salt: int) -> float:
    """Give a number in 0..1 that follows from two integers (splitmix64)."""
    z = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(salt) * np.uint64(0xD1B54A32D192ED03)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return float((z ^ (z >> np.uint64(31))) >> np.uint64(11)) / 2.0**53


@njit
def object_of(block: int, local: int, side: int) -> int:
    """Give the object of a fragment."""
    step = (side * side, side, 1)[local % 3]
    place = block // step % side
    return (block - place % SPAN * step) * IN_BLOCK + local


@njit
def layer(first: int, last: int, side: int):  # type: ignore[no-untyped-def]
    """Give the tables of the blocks first..last."""
    n = (last - first) * IN_BLOCK
    weights, sums, objects = np.zeros(n, np.int64), np.zeros((n, CHANNELS)), np.zeros(n, np.int64)
    pairs, same, found = np.zeros((3 * n, 2), np.int64), np.zeros(3 * n, np.bool_), 0
    for i in range(n):
        block, local, node = first + i // IN_BLOCK, i % IN_BLOCK, first * IN_BLOCK + i + 1
        objects[i] = object_of(block, local, side)
        sliver = random(node, 1) < 0.03
        weights[i] = 5 + random(node, 2) * (50 if sliver else 5000) + (0 if sliver else 100)
        for c in range(CHANNELS):
            noise = random(node, 10 + c) + random(node, 30 + c) + random(node, 50 + c) - 1.5
            mean = 64 * random(objects[i], 100 + c) + noise * (0.6 if sliver else 0.12)
            sums[i, c] = mean * weights[i]
        for other in (local + 1, local + 7):
            if other < IN_BLOCK:
                pairs[found] = node, node + other - local
                same[found] = True
                found += 1
        step = (side * side, side, 1)[local % 3]
        if block // step % side + 1 < side:
            pairs[found] = node, node + step * IN_BLOCK
            found += 1
    return weights, sums, weights, objects, pairs[:found], np.full(found, 30, np.int64), same[:found]


def generate(folder: Path, side: int) -> dict[str, float]:
    """Write the tables of side³ blocks."""
    columns = [Column(folder / name, *kind) for name, kind in KINDS.items()]
    for column, (kind, width) in zip(columns[:4], list(KINDS.values())[:4], strict=True):
        column.add(np.zeros((1, *width), kind))
    step = 2000
    for first in range(0, side**3, step):
        for column, values in zip(columns, layer(first, min(first + step, side**3), side), strict=True):
            column.add(values)
    arrays = [column.array() for column in columns]
    return {"fragments": len(arrays[0]) - 1, "edges": len(arrays[4])}


def load(folder: Path) -> dict[str, np.ndarray]:
    """Map the tables."""
    return {name: np.memmap(folder / name, kind, "r").reshape(-1, *width) for name, (kind, width) in KINDS.items()}


def decide_all(folder: Path, work: Path, batch: int) -> dict[str, float | str]:
    """Decide, and compare with the objects that fragments were made of."""
    columns = load(folder)
    fragments = Fragments(np.zeros(0, np.int64), columns["weights"], columns["sums"], columns["voxels"])
    edges = Edges(columns["pairs"], columns["contacts"], columns["same_block"])
    held, stop = [0], threading.Event()
    watcher = threading.Thread(target=watch, args=(held, stop))
    watcher.start()
    start = time.perf_counter()
    roots = decide(fragments, edges, StitchingSettings(), final=False, folder=work, batch=batch)
    ids = number_segments(roots, fragments.voxels, 0, work)
    seconds = time.perf_counter() - start
    stop.set()
    watcher.join()
    # What follows looks at the result as a whole, which is no part of the decision.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak, disk = int(status["VmHWM"].split()[0]), sum(path.stat().st_blocks for path in work.rglob("*"))
    return {
        "seconds": seconds,
        "processor_seconds": time.process_time(),
        "held_mib": held[0] / 1024,
        "peak_mib": peak / 1024,
        "disk_mib": disk * 512 / 2**20,
        "segments": int(ids.max()),
        "false_merges": int(mixed(ids, np.asarray(columns["objects"]), np.asarray(columns["weights"]))),
        "digest": hashlib.sha256(ids).hexdigest()[:16],
    }


@njit
def mixed(ids, objects, weights):  # type: ignore[no-untyped-def]
    """Count the segments that hold fragments of two objects, slivers left out."""
    first = np.full(ids.max() + 1, -1, np.int64)
    wrong = np.zeros(len(first), np.bool_)
    for node in range(1, len(ids)):
        if weights[node] >= 100:
            wrong[ids[node]] |= first[ids[node]] not in (-1, objects[node])
            first[ids[node]] = objects[node]
    return wrong.sum()


def watch(held: list[int], stop: threading.Event) -> None:
    """Note the most memory that is held: mapped files, which the system takes back when it likes, do not count."""
    while not stop.wait(0.1):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                held[0] = max(held[0], int(line.split()[1]))


if __name__ == "__main__":
    what, where, count = sys.argv[1], Path(sys.argv[2]), int(float(sys.argv[3]))
    limit = int(sys.argv[4]) if len(sys.argv) > 4 else BATCH
    extent = round((count / IN_BLOCK) ** (1 / 3))
    found = generate(where, extent) if what == "generate" else decide_all(where, where / "work", limit)
    print(json.dumps(found))
