"""VQ-VAE on idr0093 (genome-wide siRNA screen, 5 channels, 16 bit), or on simulated plates like its own.

    python launch.py --config=configs/vqvae_idr0093.py               the real set, once built; the predecessor's table
    python launch.py --config=configs/vqvae_idr0093.py:simulated     simulated plates; what `make demo` runs
    python launch.py --config=configs/vqvae_idr0093.py:tiny          simulated plates, seconds; what the tests run

The network is chosen by config.model.encoder: the predecessor's stack of 150 narrow residual layers, a ResNet or a ViT.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    """The configuration of one variant: "", "simulated" or "tiny"; the simulated one is scored in README.md."""
    return base.get_config(variant, "vqvae_idr0093")
