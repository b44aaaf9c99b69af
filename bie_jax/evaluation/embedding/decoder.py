"""Which runs can draw what they saw."""

from bie_jax.config.schema import Config


def has_decoder(config: Config) -> bool:
    """Whether a run's method has a decoder: only then are there reconstructions, to be written, verified and shown.

    Every method of today has one. The record of a method is to say so itself, `METHODS[config.model.name].decodes`,
    and then that is the one line here.
    """
    return True
