"""How many codes, and so how many numbers per image? 12 trials; experiments/ablations has the table.

python launch.py --config=configs/vqvae_idr0093.py:simulated --sweep=configs/sweeps/latent_size.py
"""

from bie_jax.tuning.sweep import Choice, Sweep
from configs.sweeps.base import ablation


def get_sweep() -> Sweep:
    """Four sizes of the codebook."""
    return ablation({"model.latent_dim": Choice((8, 32, 128, 512))})
