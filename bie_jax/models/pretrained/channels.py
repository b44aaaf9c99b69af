"""Weights of the first layer for another number of channels."""

import numpy as np


def adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """The first layer for another number of channels.

    Args:
        kernel: [kh, kw, K, D], trained on K channels.
        channels: C.

    Returns:
        [kh, kw, C, D]: each the sum over K divided by C; the same kernel where C = K.
    """
    if kernel.shape[2] == channels:
        return kernel
    return np.repeat(kernel.sum(axis=2, keepdims=True) / channels, channels, axis=2)
