"""Where the network runs."""

from __future__ import annotations

import resource
import sys

import torch


def choose_device(threads: int) -> str:
    """Give "cuda" where there is a GPU, else "cpu", with so many threads."""
    torch.set_num_threads(threads)
    # Blocks must agree with each other: no reduced precision, no algorithm chosen by shape.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    return "cuda" if torch.cuda.is_available() else "cpu"


def count_gpus() -> int:
    """Count the GPUs that this process may use."""
    return torch.cuda.device_count()


def choose_training_device(threads: int) -> str:
    """Give "cuda" where there is a GPU, else "cpu"; quick rather than exact, for no block depends on another here."""
    device = choose_device(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
    return device


def peak_memory_mb(device: str) -> dict[str, int]:
    """Give the most memory that this process had so far: resident, and on its GPU, in MiB."""
    # Linux counts KiB, macOS bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = {"memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit}
    if device == "cuda":
        peak["gpu_memory"] = torch.cuda.max_memory_allocated() // 2**20
    return peak
