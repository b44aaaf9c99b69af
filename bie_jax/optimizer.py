"""Moved to `bie_jax.training.optimizer`."""

from bie_jax.training.optimizer import build_optimizer as build_optimizer
