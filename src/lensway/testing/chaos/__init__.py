"""Chaos: faults on real processes, and the verdict."""
