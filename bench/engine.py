"""What the block engine costs: for a block beside daisy and plain Dask, and to start again after a million blocks."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import dask
import numpy as np
from distributed import Client, LocalCluster

from bench.empty_blocks import Empty, line_of
from bench.frame import Claim, Report, Row
from bench.memory import peak_memory
from bench.peers import environment, run_script
from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.frames import DONE, STARTED, read_frames
from spoco_blocks.engine.ledger import Ledger, Tables
from spoco_blocks.engine.runner import run as run_blocks

WORKERS = 2
DAISY = "daisy==2.0.0"


class Timing(NamedTuple):
    """Seconds that starting and stopping take, and seconds that the blocks take."""

    start: float
    blocks: float


def ours(execution: Execution, count: int) -> Timing:
    """Run empty blocks, each with its record in a ledger, which also says when the first one was handed out."""
    with tempfile.TemporaryDirectory() as folder:
        blocks = line_of(count, Path(folder))
        start = time.perf_counter()
        run_blocks(Empty(), blocks, execution)
        total = time.perf_counter() - start
        with (blocks.folder / "shard-0.ledger").open("rb") as file:
            file.readline()
            frames = list(read_frames(file))
    handed_out = min(frame.time for frame in frames if frame.kind == STARTED)
    spent = max(frame.time for frame in frames if frame.kind == DONE) - handed_out
    return Timing(total - spent, spent)


def on_a_cluster(work: Callable[[LocalCluster, int], Timing], count: int) -> Timing:
    """Start a local cluster of processes, let it import what is needed for a little work, then do all of it."""
    options = {"n_workers": WORKERS, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "memory_limit": 0}
    before = time.perf_counter()
    with LocalCluster(silence_logs=50, **options) as cluster:
        work(cluster, 2 * WORKERS)
        timing = work(cluster, count)
    return Timing(time.perf_counter() - before - timing.blocks, timing.blocks)


def our_processes(cluster: LocalCluster, count: int) -> Timing:
    """Run empty blocks on a cluster."""
    return ours(Execution("dask", scheduler=cluster.scheduler_address), count)


def _nothing(index: int) -> None:
    """Do the work of a block."""


def dask_threads(count: int) -> Timing:
    """Run a graph of empty tasks in threads."""
    start = time.perf_counter()
    dask.compute([dask.delayed(_nothing)(index) for index in range(count)], scheduler="threads", num_workers=WORKERS)
    return Timing(0.0, time.perf_counter() - start)


def dask_processes(cluster: LocalCluster, count: int) -> Timing:
    """Run a graph of empty tasks on a cluster."""
    with Client(cluster) as client:
        start = time.perf_counter()
        client.compute(dask.delayed(list)([dask.delayed(_nothing)(index) for index in range(count)]), sync=True)
        return Timing(0.0, time.perf_counter() - start)


def daisy_processes(count: int) -> Timing:
    """Run empty blocks with daisy, which notes each as done as well."""
    with tempfile.TemporaryDirectory() as folder:
        found = run_script(environment(DAISY), "daisy_blocks.py", [count, WORKERS], Path(folder))
    return Timing(found["start"], found["all"] - found["start"])


CONTENDERS: Mapping[str, Callable[[int], Timing]] = {
    "ours, serial": partial(ours, Execution()),
    "ours, threads": partial(ours, Execution("threads", WORKERS)),
    "dask.delayed, threads": dask_threads,
    "ours, processes": partial(on_a_cluster, our_processes),
    "dask.delayed, processes": partial(on_a_cluster, dask_processes),
    "daisy, processes": daisy_processes,
}
RIVALS = {
    "ours, threads": ("dask.delayed, threads",),
    "ours, processes": ("dask.delayed, processes", "daisy, processes"),
}


def overhead(report: Report, quick: bool) -> None:
    """Measure what a block costs that does nothing, start-up apart."""
    count = 10000
    # Dask's overhead is the same for each task, and a hundred times what there is to lose by counting fewer.
    counts = {name: 1000 if quick and name.startswith("dask") else count for name in CONTENDERS}
    timings: dict[str, list[Timing]] = {name: [] for name in CONTENDERS}
    for contender in CONTENDERS.values():
        contender(WORKERS)  # what is compiled or installed once
    for _ in range(3):
        for name, contender in CONTENDERS.items():
            timings[name].append(contender(counts[name]))
    start = {name: statistics.median(timing.start for timing in found) for name, found in timings.items()}
    each = {
        name: statistics.median(timing.blocks for timing in found) / counts[name] * 1e3
        for name, found in timings.items()
    }
    subject = f"{count} empty blocks"
    for name, peers in RIVALS.items():
        for peer in peers:
            kind = name.removeprefix("ours, ")
            report.rows.append(Row(subject, f"{kind}: ms a block", each[name], each[peer], peer))
            if kind == "processes":
                report.rows.append(Row(subject, "processes: seconds to start and stop", start[name], start[peer], peer))
            report.claims.append(Claim(f"{name}: overhead of {peer}, times ours", each[peer] / each[name], at_least=1))
    report.notes.append(
        f"{subject}, {WORKERS} workers, medians of 3; start and stop are counted apart (daisy's: what {WORKERS} blocks "
        "take). Ours and daisy note each block as done on disk, dask.delayed does not. Serial, ours: "
        f"{each['ours, serial']:.4f} ms a block."
    )


def restart(report: Report, quick: bool) -> None:
    """Measure a start where all blocks but one are done, in a process of its own."""
    count = 10**5 if quick else 10**6
    rng = np.random.default_rng(0)
    records = [_record(rng) for _ in range(100)]
    with tempfile.TemporaryDirectory() as folder:
        blocks = line_of(count + 1, Path(folder) / "ledger")
        with Ledger(blocks.folder, "shard-0", blocks.record_identity) as ledger:
            for block in range(count):
                ledger.commit(block, records[block % 100])
            size = ledger.path.stat().st_size
        found = run_script(Path(sys.executable), "restart.py", [blocks.folder, count + 1], Path.cwd())
    if found["computed"] != 1:
        raise RuntimeError(f"one block was left to do, {found['computed']} were computed")
    words = "10^5" if quick else "10^6"
    report.claims += [
        Claim(f"restart with {words} done blocks: seconds", found["seconds"], at_most=10),
        Claim(f"restart with {words} done blocks: peak memory, MB", found["megabytes"], at_most=1000),
        Claim(f"all records of {words} blocks found: peak memory, MB", found["megabytes_with_records"], at_most=1000),
    ]
    report.notes.append(
        f"A ledger of {words} records of eight fragments each, {size / 1e6:.0f} MB; the process starts, finds what is "
        f"to be done and does one block. Finding all records takes {found['seconds_of_records']:.2f} s more."
    )


def _record(rng: np.random.Generator) -> Tables:
    """Give what a block with eight fragments may leave: sizes, centres, and the pairs that touch."""
    return {
        "voxels": rng.integers(1, 10**5, 8),
        "centres": rng.random((8, 3), np.float32),
        "contacts": rng.integers(1, 9, (10, 2)).astype(np.uint32),
        "foreground_voxels": np.array(rng.integers(10**6)),
    }


# A part adds rows, claims and notes to the report.
PARTS = (overhead, restart, peak_memory)


def run(quick: bool) -> Report:
    """Measure the block engine, part by part."""
    report = Report()
    for part in PARTS:
        part(report, quick)
    return report
