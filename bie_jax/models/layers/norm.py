"""The layer normalization of every network here."""

import flax.linen as nn


def layer_norm(epsilon: float, name: str | None = None) -> nn.LayerNorm:
    """Layer normalization over the features of a token or a position; its mean and variance are float32.

    About the mean: flax's own choice, the mean square less the squared mean, loses its digits far from 0.
    """
    return nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, name=name)
