"""Moved to `bie_jax.models.quantizers.vector`."""

from bie_jax.models.quantizers.vector import VectorQuantizer as VectorQuantizer
