"""Benchmarks: ratios between peers measured in one run, never bare numbers of one machine."""
