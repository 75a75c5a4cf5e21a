"""The section that says how a network is trained."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from spoco_blocks.settings.base import Count, CountOrZero, Fraction, Positive, Section
from spoco_blocks.settings.loss import LossSettings
from spoco_blocks.settings.views import ViewSettings


class TrainingSettings(Section):
    """How the network is trained."""

    # What may change between a stopped run and the one that continues it.
    ONLY_EXECUTION: ClassVar[frozenset[str]] = frozenset(
        {"save_every_minutes", "workers", "channels_last", "compile", "activation_checkpointing"}
    )

    iterations: Count = 2000
    """Optimiser steps."""
    patch_voxels: tuple[Count, Count, Count] | None = None
    """Shape of a training patch; null = chosen from the size of the objects."""
    batch: Count = 2
    """Patches per step and GPU."""
    learning_rate: Positive = 6e-3
    """Peak of the one-cycle schedule."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """Momentum of the network g that averages f; 0.999 for runs of many thousands of steps."""
    seed: CountOrZero = 0
    """Seed of weights, crops and views."""
    coordinates: Literal["auto", "none"] | Positive = "auto"
    """Length in nm over which position adds 1 to the embedding: auto = a quarter of the objects' median length."""
    object_patch_fraction: Fraction = 0.8
    """Fraction of patches centred on an annotated object, the rest anywhere in the region."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto = bfloat16 on a GPU that has it, else float16; on a CPU float32 and bfloat16 are timed at the start,
    the latter only for patches of at least 8 voxels along z and at most 4096 in a plane: in others libraries fail."""
    validate_every: Count | None = None
    """Iterations between two validations; null = ten in a run, fewer where they would take a tenth of its time."""
    patience: Count | None = None
    """Stop after so many validations without a better score; null = never: the schedule is best at its end."""
    save_every_minutes: Positive = 2.0
    """A stopped run continues from its last saved state: at most this much is lost."""
    gpus: Count = 1
    """Processes that train together, each on a GPU of its own with a batch of its own; without GPUs on the CPU."""
    workers: Literal["auto"] | CountOrZero = "auto"
    """Processes per GPU that read ahead; auto = one less than processors, up to 8; none on two or fewer."""
    channels_last: Literal["auto"] | bool = "auto"
    """Memory layout of the network with the channels of a voxel side by side; auto = on a GPU, or in bfloat16."""
    compile: bool = False
    """Compile the network first: minutes at the start, quicker steps on a GPU."""
    activation_checkpointing: bool = False
    """Compute activations anew in the backward pass: a third slower, far less memory, for large patches."""
    loss: LossSettings = LossSettings()
    """Weights and margins."""
    views: ViewSettings = ViewSettings()
    """How patches are varied."""
