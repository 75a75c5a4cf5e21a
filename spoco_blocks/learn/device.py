"""Where the network runs."""

from __future__ import annotations

import torch


def choose_device(threads: int) -> str:
    """Give "cuda" where there is a GPU, else "cpu", with so many threads."""
    torch.set_num_threads(threads)
    # Blocks must agree with each other: no reduced precision, no algorithm chosen by shape.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    return "cuda" if torch.cuda.is_available() else "cpu"
