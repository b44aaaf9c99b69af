"""Sweeps, folds and ablations: many runs that differ in a few keys, and what is learned from them side by side."""
