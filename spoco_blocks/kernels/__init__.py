"""Numerical kernels: numpy and numba only, no IO, no logging, no global randomness."""
