"""Prediction as a pipeline: several blocks in flight against each of its parts alone, and against a plain loop."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.frame import Claim, Contender, Report, Row, measure
from spoco_blocks.grid import Block, BlockGrid, Triple, triple
from spoco_blocks.learn.device import choose_device
from spoco_blocks.learn.intensity import Normalisation
from spoco_blocks.learn.network import EmbeddingNetwork
from spoco_blocks.learn.network_plan import NetworkPlan, plan_network
from spoco_blocks.learn.predict import Prediction, Predictor
from spoco_blocks.settings.network import PRESETS
from spoco_blocks.volumes import Volume, create_zarr

THREADS = 3
NORMALISATION = Normalisation((30.0,), (220.0,))


@dataclass(frozen=True)
class Task:
    """The blocks of a volume and where what is predicted of them goes.

    Attributes
    ----------
    grid : BlockGrid
        Blocks with the network's halo.
    raw, embeddings, foreground : Volume
        Sharded stores.
    """

    grid: BlockGrid
    raw: Volume
    embeddings: Volume
    foreground: Volume

    def read(self, block: Block) -> NDArray[np.float32]:
        """Read and normalise the outer box."""
        return NORMALISATION(self.raw.read(block.outer))

    def write(self, block: Block, predicted: Prediction) -> None:
        """Write the inner box as stage `embed` does."""
        self.embeddings.write(block.inner, predicted.embeddings.astype(np.float16))
        self.foreground.write(block.inner, np.rint(predicted.foreground * 255).astype(np.uint8))


def make_task(folder: Path, plan: NetworkPlan, shape: Triple, block_shape: Triple, dtype: str) -> Task:
    """Generate a volume of smooth blobs and noise, and create the stores; a shard is a block."""
    rng = np.random.default_rng(0)
    common = {"shape": shape, "chunk_shape": triple(b // 2 for b in block_shape), "shard_shape": block_shape}
    raw = create_zarr(str(folder / "raw.zarr"), dtype=dtype, **common)
    scale = np.iinfo(dtype).max / 255
    for block in BlockGrid(shape, block_shape):
        coarse = rng.uniform(40, 200, triple(s // 16 for s in block.inner.shape))
        voxels = coarse.repeat(16, 0).repeat(16, 1).repeat(16, 2) + rng.normal(0, 10, block.inner.shape)
        raw.write(block.inner, (voxels.clip(0, 255) * scale).astype(dtype))
    return Task(
        BlockGrid(shape, block_shape, plan.halo, plan.stride),
        raw,
        create_zarr(str(folder / "embeddings.zarr"), dtype="float16", channels=plan.embedding_channels, **common),
        create_zarr(str(folder / "foreground.zarr"), dtype="uint8", **common),
    )


def in_threads(threads: int, function: Callable[[Block], object], blocks: list[Block]) -> float:
    """Give the seconds that all blocks take with so many in flight."""
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(function, blocks):
            pass
    return time.perf_counter() - start


def flops(plan: NetworkPlan) -> float:
    """Count the operations of the network per voxel of its input: two for each weight that a voxel meets."""
    total, share = 0.0, 1.0
    for level, (width, kernel) in enumerate(zip(plan.widths, plan.kernels, strict=True)):
        inputs = plan.widths[level - 1] if level else plan.in_channels
        weights = prod(kernel) * width * (inputs + width)
        if level < len(plan.pools):
            weights += prod(kernel) * 2 * width * width
        total += 2 * share * weights
        if level < len(plan.pools):
            share /= prod(plan.pools[level])
            total += 2 * share * width * plan.widths[level + 1]
    return total + 2 * plan.widths[0] * plan.outputs


def compare_pipeline(report: Report, name: str, task: Task, predictor: Predictor, repeats: int) -> None:
    """Time the parts, the loop and the pipeline in turn; what slows the machine for a while slows all of them."""
    blocks = list(task.grid)
    held = {block.index: task.read(block) for block in blocks}
    predicted = predictor(held[0], blocks[0].inner_local)

    def network(block: Block) -> None:
        predictor(held[block.index], block.inner_local)

    def whole(block: Block) -> None:
        task.write(block, predictor(task.read(block), block.inner_local))

    parts: dict[str, Callable[[Block], object]] = {
        "read": task.read,
        "network": network,
        "write": lambda block: task.write(block, predicted),
    }
    seconds: dict[str, list[float]] = {key: [] for key in (*parts, "pipeline", "loop")}
    for _ in range(repeats):
        for key, part in parts.items():
            seconds[key].append(in_threads(THREADS, part, blocks))
        seconds["pipeline"].append(in_threads(THREADS, whole, blocks))
        seconds["loop"].append(in_threads(1, whole, blocks))
    least = {key: min(values) for key, values in seconds.items()}
    voxels = prod(task.grid.shape) / 1e6
    longest = max(parts, key=lambda key: least[key])
    report.rows += [Row(name, "Mvoxel/s, pipeline", voxels / least["pipeline"], voxels / least[p], p) for p in parts]
    report.rows.append(Row(name, "Mvoxel/s, pipeline", voxels / least["pipeline"], voxels / least["loop"], "loop"))
    ratios = [pipe / max(times) for pipe, *times in zip(seconds["pipeline"], *(seconds[p] for p in parts), strict=True)]
    gains = [loop / pipe for loop, pipe in zip(seconds["loop"], seconds["pipeline"], strict=True)]
    report.claims += [
        Claim(f"{name}: pipeline over its longest part ({longest})", statistics.median(ratios), at_most=1.15),
        Claim(f"{name}: times the speed of a loop", statistics.median(gains), at_least=1),
    ]


def compare_precisions(report: Report, name: str, network: EmbeddingNetwork, device: str, side: int) -> None:
    """Add the speed and error of bfloat16 beside float32, and on a GPU what share of the card's rates is reached."""
    raw = np.random.default_rng(0).normal(size=(network.plan.in_channels, side, side, side)).astype(np.float32)
    predictors = {p: Predictor(network, device, precision=p) for p in ("float32", "bfloat16")}
    measured = measure([Contender(p, partial(predictor, raw)) for p, predictor in predictors.items()])
    speeds = {p: raw[0].size / m.median / 1e6 for p, m in measured.items()}
    wide, half = (measured[p].result.embeddings for p in predictors)
    cosine = np.vdot(wide, half) / (np.linalg.norm(wide) * np.linalg.norm(half))
    report.rows += [
        Row(name, "Mvoxel/s, bfloat16", speeds["bfloat16"], speeds["float32"], "float32"),
        Row(
            name,
            "greatest error of bfloat16",
            float(np.abs(wide - half).max()),
            float(np.abs(wide).max()),
            "greatest number",
        ),
        Row(name, "1 - cosine of bfloat16", 1 - float(cosine), 1.0, "none alike"),
    ]
    if device == "cuda":
        for precision, speed in speeds.items():
            reached = speed * 1e6 * flops(network.plan) / 1e12
            report.rows.append(Row(name, f"TFLOP/s, {precision}", reached, matrix_rate(precision), "matrix product"))
        moved = 4 * (network.plan.in_channels + network.plan.outputs) * speeds["float32"] / 1e3
        report.rows.append(Row(name, "GB/s to and from the GPU", moved, copy_rate(), "one long copy"))


def matrix_rate(precision: str, edge: int = 8192) -> float:
    """Measure how many TFLOP/s a large matrix product reaches on the GPU."""
    a = torch.randn(edge, edge, device="cuda", dtype=getattr(torch, precision))
    return 2 * edge**3 / gpu_seconds(lambda: a @ a) / 1e12


def copy_rate(size: int = 2**29) -> float:
    """Measure how many GB/s a copy from pinned memory to the GPU reaches."""
    host = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    return size / gpu_seconds(lambda: host.to("cuda", non_blocking=True)) / 1e9


def gpu_seconds(work: Callable[[], object], repeats: int = 10) -> float:
    """Give the seconds that the GPU takes for a piece of work, after one run that is not counted."""
    work()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def plan_of(preset: str) -> NetworkPlan:
    """Plan a network for isotropic voxels."""
    width, levels, channels = PRESETS[preset]
    return plan_network(
        (10.0, 10.0, 10.0),
        in_channels=1,
        embedding_channels=channels,
        width=width,
        levels=levels,
        affinities=True,
        planar=False,
    )


def run(quick: bool) -> Report:
    """Compare the pipeline with its parts, the network on one thread or a GPU; then the precisions."""
    device = choose_device(threads=1)
    preset, full, dtypes = ("base", 384, ("uint8", "uint16")) if device == "cuda" else ("tiny", 256, ("uint8",))
    edge, block = (192, 96) if quick else (full, 128)
    report = Report(
        notes=[
            f"{THREADS} blocks in flight, for the parts as for the pipeline; the loop has one. Blocks of {block}³ with "
            "their halo; raw data, float16 embeddings and uint8 foreground in sharded Zarr on the local disk.",
            "Ratios are medians over rounds in which everything ran in turn; speeds are of the best round.",
        ]
    )
    plan = plan_of(preset)
    network = EmbeddingNetwork(plan).eval()
    for dtype in dtypes:
        with tempfile.TemporaryDirectory() as folder:
            task = make_task(Path(folder), plan, (edge,) * 3, (block,) * 3, dtype)
            for precision in ("float32", "bfloat16"):
                predictor = Predictor(network, device, precision=precision)
                name = f"{preset}, {dtype}, {precision}"
                compare_pipeline(report, name, task, predictor, repeats=1 if quick else 3)
    for other in (preset,) if quick else PRESETS:
        compare_precisions(report, f"{other} 96³", EmbeddingNetwork(plan_of(other)).eval(), device, 96)
    return report
