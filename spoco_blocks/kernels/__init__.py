"""Numerical kernels: numpy and numba only, no IO, no logging, no global randomness."""

from __future__ import annotations

from spoco_blocks.kernels.compiled import keep_compiled

keep_compiled()
