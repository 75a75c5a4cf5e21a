"""Stage `embed`: the network's output for every block, exact across blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.ledger import Tables
from spoco_blocks.engine.manifest import Manifest, Stopwatch
from spoco_blocks.engine.runner import Blocks, run
from spoco_blocks.grid import Block, Triple
from spoco_blocks.learn.checkpoint import load_checkpoint
from spoco_blocks.learn.device import choose_device
from spoco_blocks.learn.intensity import Normalisation
from spoco_blocks.learn.network import EmbeddingNetwork
from spoco_blocks.learn.predict import predict
from spoco_blocks.settings.jobs import EmbedJob, digest
from spoco_blocks.settings.sections import Source
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.sources import open_source

VERSION = 1
# Peak floats per voxel of the outer box, in units of the first level's width: measured while the last skip is joined.
ACTIVATIONS = 9


@lru_cache(maxsize=2)
def open_network(checkpoint: str, weights: str, identity: str) -> tuple[EmbeddingNetwork, str]:
    """Load f or g once per process; `identity` is its digest, so that a retrained model is loaded anew."""
    # One thread, whatever the executor: results then do not depend on how many share the machine.
    device = choose_device(threads=1)
    return load_checkpoint(Path(checkpoint)).network(ema=weights == "g").to(device), device


@dataclass(frozen=True)
class EmbedBlock:
    """Read the outer box, predict, write the inner one."""

    raw: Source
    origin: Triple
    normalisation: Normalisation
    checkpoint: str
    weights: str
    identity: str
    width: int
    channels: int
    embeddings: Source
    foreground: Source
    affinities: Source | None

    def __call__(self, block: Block) -> Tables:
        """Predict one block."""
        network, device = open_network(self.checkpoint, self.weights, self.identity)
        raw = self.normalisation(open_source(self.raw).read(block.outer.shifted(self.origin)))
        predicted = predict(network, raw, device=device)
        inner = block.inner_local.slices
        probability = _as_byte(predicted.foreground[inner])
        open_source(self.embeddings).write(block.inner, predicted.embeddings[(slice(None), *inner)].astype(np.float16))
        open_source(self.foreground).write(block.inner, probability)
        if self.affinities is not None:
            open_source(self.affinities).write(block.inner, _as_byte(predicted.affinities[(slice(None), *inner)]))
        return {"foreground_voxels": np.array(np.count_nonzero(probability > 127))}

    def memory_bytes(self, block: Block) -> int:
        """Raw, activations of the finest level and output, in float32."""
        return block.outer.size * 4 * (2 + ACTIVATIONS * self.width + 2 * self.channels) + 300 * 2**20


def _as_byte(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.rint(probability * 255).astype(np.uint8)


def run_embed(job: EmbedJob, layout: Layout, execution: Execution, shard: int, shards: int) -> Manifest:
    """Predict one shard of the blocks."""
    results = layout.segmentation(job.segmentation)
    planned = Manifest.read(results.manifest("plan"))
    labels = Manifest.read(layout.volume(job.volume).manifest)
    inputs = {"plan": planned.digest, "labels": labels.digest}
    watch = Stopwatch("embed", digest("embed", VERSION, job.model_dump(mode="json"), inputs), inputs)
    plan = Plan.read(planned)
    task = EmbedBlock(
        raw=job.raw,
        origin=plan.origin,
        normalisation=Normalisation(tuple(labels.result["intensity_low"]), tuple(labels.result["intensity_high"])),
        checkpoint=plan.checkpoint,
        weights=plan.weights,
        identity=planned.inputs["weights"],
        width=load_checkpoint(Path(plan.checkpoint)).plan.widths[0],
        channels=plan.channels + len(plan.offsets),
        embeddings=Source(uri=str(results.embeddings)),
        foreground=Source(uri=str(results.foreground)),
        affinities=Source(uri=str(results.affinities)) if plan.offsets else None,
    )
    blocks = Blocks(plan.embed_grid, results.ledger("embed"), watch.identity, shard, shards)
    summary = run(task, blocks, execution)
    result = {"job": job.model_dump(mode="json"), "records": blocks.record_identity, **summary.__dict__}
    return watch.finish(results.manifest("embed", shard), result)
