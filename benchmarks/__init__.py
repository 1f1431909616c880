"""Measurements: each prints its figures and stores them in `benchmarks/results/`."""
