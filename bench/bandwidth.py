"""The kernels that every voxel passes after clustering, beside a copy of the same arrays and patchworks' statistics."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from bench.frame import Claim, Contender, Report, Row, measure
from bench.peers import environment, run_script
from spoco_blocks.kernels.contingency import contingency
from spoco_blocks.kernels.lookup import apply_lookup

TILE, SPACING = 128, 16


def crowded(side: int, seed: int = 0) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Give two labellings of crowded objects about 16 voxels across, whose borders lie two voxels apart.

    Parameters
    ----------
    side : int
        Extent along each axis, a multiple of 128.
    seed : int
        Of the objects' places and numbers.

    Returns
    -------
    first, second : ndarray of uint32, shape (side, side, side)
        A quarter of both is background; numbers of the second are shuffled.
    """
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*[np.arange(SPACING // 2, TILE, SPACING)] * 3, indexing="ij"), -1).reshape(-1, 3)
    places = (places + rng.integers(-6, 7, places.shape)).clip(0, TILE - 1)
    centres = np.zeros((TILE,) * 3, np.uint32)
    centres[tuple(places.T)] = np.arange(1, len(places) + 1)
    distance, nearest = distance_transform_edt(centres == 0, return_indices=True)
    cells = np.where(distance < 0.62 * SPACING, centres[tuple(nearest)], 0).astype(np.uint32)
    parts = side // TILE
    first = np.tile(cells, (parts,) * 3)
    number = np.arange(parts**3, dtype=np.uint32).reshape((parts,) * 3) * np.uint32(len(places))
    for axis in range(3):
        number = number.repeat(TILE, axis)
    first = np.where(first > 0, first + number, 0).astype(np.uint32)
    shuffled = np.concatenate([[0], 1 + rng.permutation(int(first.max()))]).astype(np.uint32)
    return first, shuffled[np.roll(first, (1, 1, 2), axis=(0, 1, 2))]


def compare_kernels(report: Report, side: int = 256) -> None:
    """Measure processor time of the kernels, of copying what they read, and of patchworks' statistics of pairs."""
    first, second = crowded(side)
    table = np.random.default_rng(1).permutation(int(first.max()) + 1).astype(np.uint32)
    found = measure(
        [
            Contender("relabel", lambda: apply_lookup(first, table)),
            Contender("copy", first.copy),
            Contender("numpy", lambda: table[first]),
            Contender("contingency", lambda: contingency(first, second)),
            Contender("copy both", lambda: (first.copy(), second.copy())),
        ],
        repeats=7,
        clock=time.process_time,
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, labels in (("first", first), ("second", second)):
            np.save(Path(folder) / f"{name}.npy", labels)
        theirs = run_script(environment("patchworks==3.3.0"), "patchworks_pairs.py", (folder,), Path(folder))
        counted = np.load(Path(folder) / "pairs.npy")
    pairs, counts = found["contingency"].result
    kept = (pairs > 0).all(axis=1)
    same = np.array_equal(np.column_stack([pairs[kept].astype(np.int64), counts[kept]]), counted)
    seconds = {name: of_one.median for name, of_one in found.items()} | {"patchworks": statistics.median(theirs)}
    name = f"{side}³ uint32"
    ratios = {
        ("relabel", "copy"): Claim(f"{name}: relabel, times a copy", seconds["relabel"] / seconds["copy"], at_most=2),
        ("contingency", "copy both"): Claim(
            f"{name}: contingency, times copies of both", seconds["contingency"] / seconds["copy both"], at_most=2
        ),
        ("contingency", "patchworks"): Claim(
            f"{name}: times the speed of patchworks' pair statistics",
            seconds["patchworks"] / seconds["contingency"],
            at_least=50,
        ),
    }
    for ours, peer in [*ratios, ("relabel", "numpy")]:
        report.rows.append(Row(name, f"{ours}, s of processor", seconds[ours], seconds[peer], peer))
    report.claims += [*ratios.values(), Claim(f"{name}: same pairs as patchworks", float(same), at_least=1)]


def run(quick: bool) -> Report:
    """Compare on 256³ voxels, also where it is to be quick: fewer stay in the caches, and copying does not count."""
    report = Report(notes=["Two labellings of touching objects about 16 voxels across. Processor time, one thread."])
    compare_kernels(report)
    return report
