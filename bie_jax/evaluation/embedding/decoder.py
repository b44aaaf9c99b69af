"""Which runs can draw what they saw."""

from bie_jax.config.schema import Config
from bie_jax.objectives import METHODS


def has_decoder(config: Config) -> bool:
    """Whether a run has a decoder: only then are there reconstructions, to be written, verified and shown."""
    return METHODS[config.model.name].has_decoder and config.model.decoder != "none"
