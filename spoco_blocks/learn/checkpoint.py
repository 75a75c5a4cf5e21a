"""A trained model in one file that says everything needed to use it."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spoco_blocks.errors import CheckpointError
from spoco_blocks.learn.network import EmbeddingNetwork
from spoco_blocks.learn.network_plan import NetworkPlan
from spoco_blocks.learn.resume import save_atomically

FORMAT = "spoco_blocks checkpoint"
VERSION = 4


@dataclass(frozen=True)
class Checkpoint:
    """Networks f and g and how they were made.

    Attributes
    ----------
    plan : NetworkPlan
        The architecture, from which halo and stride follow.
    voxel_size_nm : tuple of float
        Voxel size (z, y, x) the model was trained at.
    planar : bool
        Whether it was trained on independent 2D images.
    coordinate_scale_nm : float or None
        Length over which position adds 1 to the embedding; None = no coordinates.
    clustering_kind : str
        Method that suits the annotated objects; see `recommend`.
    foreground_threshold : float
        Probability of foreground that does.
    smallest_voxels : int or None
        Size of a small object, in voxels of the model: the tenth percentile of the annotated ones. None = not known.
    object_distance : float
        How far embeddings of one object lie apart.
    iterations : int
        Optimiser steps taken.
    settings : dict
        The training job.
    weights : dict
        State of f.
    weights_ema : dict
        State of g, which predicts.
    """

    plan: NetworkPlan
    voxel_size_nm: tuple[float, float, float]
    planar: bool
    coordinate_scale_nm: float | None
    clustering_kind: str
    foreground_threshold: float
    smallest_voxels: int | None
    object_distance: float
    iterations: int
    settings: dict[str, Any]
    weights: dict[str, Tensor]
    weights_ema: dict[str, Tensor]

    def network(self, *, ema: bool = True) -> EmbeddingNetwork:
        """Build g (or f) in evaluation mode."""
        network = EmbeddingNetwork(self.plan)
        network.load_state_dict(self.weights_ema if ema else self.weights)
        return network.eval()

    def save(self, path: Path) -> None:
        """Write atomically."""
        plain = {field: getattr(self, field) for field in self.__dataclass_fields__}
        save_atomically(path, {**plain, "format": FORMAT, "version": VERSION, "plan": asdict(self.plan)})


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; runs no code that the file may hold.

    Raises
    ------
    CheckpointError
        When it is missing, damaged, not ours or of another version.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: train the model first, or correct models.NAME.checkpoint.")
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file ends the unpickler in any way whatever
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({first}); train again or copy it anew."
        ) from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this program; expected a file that stage train wrote.")
    if data.get("version") != VERSION:
        raise CheckpointError(
            f"{path} is a checkpoint of version {data.get('version')}, this program reads version {VERSION}; train the "
            "model again, or use the release that wrote it."
        )
    missing = sorted(set(Checkpoint.__dataclass_fields__) - set(data))
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}; train the model again, or copy its file anew.")
    fields = {name: data[name] for name in Checkpoint.__dataclass_fields__}
    fields["plan"] = NetworkPlan.from_dict(data["plan"])
    fields["voxel_size_nm"] = tuple(data["voxel_size_nm"])
    return Checkpoint(**fields)


def weights_digest(checkpoint: Checkpoint, *, ema: bool = True) -> str:
    """Give a digest of the weights of g (or f): equal digests, equal predictions."""
    total = hashlib.sha256()
    for name, tensor in sorted((checkpoint.weights_ema if ema else checkpoint.weights).items()):
        total.update(name.encode())
        total.update(tensor.contiguous().numpy().tobytes())
    return total.hexdigest()[:32]
