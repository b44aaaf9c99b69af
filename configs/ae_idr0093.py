"""Autoencoder with a ResNet-18 on idr0093 (5 channels, 16 bit), or on simulated plates like its own.

    python launch.py --config=configs/ae_idr0093.py               the real set, once built
    python launch.py --config=configs/ae_idr0093.py:simulated     simulated plates, minutes on 2 CPU cores
    python launch.py --config=configs/ae_idr0093.py:tiny          simulated plates, seconds; what the tests run

`experiments/quality` has scores of a small one beside the other methods' and the baselines.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    """The configuration of one variant: "", "simulated" or "tiny"."""
    config = base.get_config(variant, "ae_idr0093")
    config.model.name = "ae"
    config.model.encoder = "resnet"
    return config
