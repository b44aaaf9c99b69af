"""Which method, each with its own configuration and the same number of images? 21 trials.

python launch.py --config=configs/vqvae_idr0093.py:simulated --sweep=configs/sweeps/methods.py
"""

from bie_jax.tuning.sweep import Options, Sweep
from configs.sweeps.base import ablation

_METHODS = ("ae", "vae", "vqvae", "mae", "simclr", "dino", "lejepa")
# The ResNet that methods of views have on simulated plates.
_SMALL = {"model.resnet.depth": 10, "model.resnet.width": 24, "model.resnet.stem": "small"}


def get_sweep() -> Sweep:
    """Seven methods, each as its configuration in configs/ has it, but for a smaller network of the autoencoders."""
    settings = {name: {"config": f"configs/{name}_idr0093.py:simulated"} for name in _METHODS}
    settings |= {name: settings[name] | _SMALL for name in ("ae", "vae")}
    return ablation({"method": Options(settings)}, train__epochs=8)
