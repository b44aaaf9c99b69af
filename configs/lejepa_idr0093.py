"""LeJEPA with a ResNet on idr0093 (5 channels, 16 bit), or on simulated plates like its own.

python launch.py --config=configs/lejepa_idr0093.py               the real set, once built
python launch.py --config=configs/lejepa_idr0093.py:simulated     simulated plates, minutes on 2 CPU cores
python launch.py --config=configs/lejepa_idr0093.py:tiny          simulated plates, seconds; what the tests run
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    """The configuration of one variant: "", "simulated" or "tiny"."""
    config = base.get_view_config(variant, "lejepa_idr0093")
    config.model.name = "lejepa"
    config.optimizer.lr = 1e-3
    config.model.head.output_dim = 64
    return config
