"""Which method, each with its own configuration and the same number of images? 21 trials.

python launch.py --config=configs/vqvae_idr0093.py:simulated --sweep=configs/sweeps/methods.py
"""

from bie_jax.tuning.sweep import Options, Sweep
from configs.sweeps.base import ablation

_METHODS = ("ae", "vae", "vqvae", "mae", "simclr", "dino", "lejepa")


def get_sweep() -> Sweep:
    """Seven methods, each as its configuration in configs/ has it."""
    settings = {name: {"config": f"configs/{name}_idr0093.py:simulated"} for name in _METHODS}
    return ablation({"method": Options(settings)}, train__epochs=8)
