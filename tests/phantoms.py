"""Small data with known truth, and networks that react to every voxel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import yaml

from spoco_blocks.grid import Box
from spoco_blocks.learn.network import EmbeddingNetwork
from spoco_blocks.learn.network_plan import NetworkPlan
from spoco_blocks.volumes import create_zarr

VOXEL_SIZE_NM = (500.0, 500.0, 500.0)


def eager_network(plan: NetworkPlan) -> EmbeddingNetwork:
    """Build a network in evaluation mode whose normalisation is not the identity, as after training."""
    generator = torch.Generator().manual_seed(0)
    network = EmbeddingNetwork(plan)
    for name, tensor in network.state_dict().items():
        if tensor.dtype.is_floating_point:
            noise = torch.randn(tensor.shape, generator=generator)
            # Outputs of the size of what is trained: rounding grows with them.
            scale = 0.5 * tensor[0].numel() ** -0.5 if tensor.dim() > 1 else 0.3
            tensor.copy_(noise.abs() + 0.5 if name.endswith(("running_var", "norm.weight")) else scale * noise)
    return network.eval()


def balls(shape=(40, 48, 64), spacing=16, radius=6.0, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Bright balls on a jittered lattice, blurred edges and noise: raw uint8 and labels uint32."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(s) for s in shape], indexing="ij"), -1)
    raw, labels = np.zeros(shape), np.zeros(shape, np.uint32)
    centres = np.stack(np.meshgrid(*[np.arange(spacing // 2, s, spacing) for s in shape], indexing="ij"), -1)
    for index, centre in enumerate(centres.reshape(-1, 3), 1):
        distance = np.linalg.norm(grid - (centre + rng.uniform(-1.5, 1.5, 3)), axis=-1)
        raw = np.maximum(raw, 1 / (1 + np.exp(distance - radius)))
        labels[distance < radius] = index
    noisy = 40 + 150 * raw + rng.normal(0, 10, shape)
    return noisy.clip(0, 255).astype(np.uint8), labels


def store(path: Path, array: np.ndarray, voxel_size_nm=VOXEL_SIZE_NM) -> str:
    """Write an array as Zarr and give its URI."""
    chunk = tuple(min(32, s) for s in array.shape)
    volume = create_zarr(
        str(path), shape=array.shape, dtype=array.dtype, chunk_shape=chunk, voxel_size_nm=voxel_size_nm
    )
    volume.write(Box.of_shape(array.shape), array)
    return str(path)


def ball_configuration(folder: Path, *, shards=2, iterations=30, **segmentation) -> dict:
    """Write a volume of balls and give a configuration that segments it."""
    raw, labels = balls()
    raw_uri, labels_uri = store(folder / "raw.zarr", raw), store(folder / "labels.zarr", labels)
    return {
        "volumes": {
            "balls": {
                "raw": {"uri": raw_uri},
                "labels": {
                    "uri": labels_uri,
                    "keep_fraction": 0.4,
                    "background_fraction": 0.5,
                    "region": {"stop_voxels": [None, None, 40]},
                },
                "truth": {"uri": labels_uri},
            }
        },
        "models": {
            "balls": {
                "volumes": ["balls"],
                "network": {"width": 6, "levels": 2, "embedding_channels": 4},
                "training": {
                    "iterations": iterations,
                    "patch_voxels": [20, 20, 20],
                    "learning_rate": 0.02,
                    "precision": "float32",
                },
            }
        },
        "segmentations": {
            "balls": {
                "volume": "balls",
                "model": "balls",
                # So small a network takes a sheet of background at the volume's faces for 0.2 foreground.
                "foreground_threshold": 0.5,
                "blocks": {"shape_voxels": [20, 24, 32], "halo_voxels": 8},
                "stitching": {"min_voxels": 50},
                **segmentation,
            }
        },
        "execution": {"shards": shards},
    }


def write_configuration(folder: Path, tree: dict) -> Path:
    """Write a configuration file."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path
