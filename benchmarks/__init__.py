"""Benchmarks: vtfast against what PyTorch users have, on the sizes of real models. See README.md."""
