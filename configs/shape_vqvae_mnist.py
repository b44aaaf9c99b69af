"""Vector-quantized autoencoder over the outlines of MNIST's digits: 16 codes for an outline.

    python launch.py --config=configs/shape_vqvae_mnist.py          the whole set, once built
    python launch.py --config=configs/shape_vqvae_mnist.py:tiny     two epochs of a small network; what the tests run

`experiments/shapes` has its scores beside the baselines.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    """The configuration of one variant, "" or "tiny"."""
    config = base.get_shape_config()
    config.data.name = "mnist_shapes"
    config.model.name = "vqvae"
    config.objective.reconstruction = 10.0  # of the mean squared error, about what the VAE has
    return base.apply_shape_variant(config, variant, "shape_vqvae_mnist")
