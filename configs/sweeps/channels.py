"""One network for all channels, one that sees each alone, or tokens of their own for each? 9 trials.

python launch.py --config=configs/simclr_idr0093.py:simulated --sweep=configs/sweeps/channels.py
"""

from bie_jax.tuning.sweep import Choice, Sweep
from configs.sweeps.base import ablation


def get_sweep() -> Sweep:
    """Three ways for a ViT to see channels, which a ResNet has but two of."""
    return ablation(
        {"model.channels": Choice(("joint", "independent", "tokens"))},
        model__encoder="vit",
        model__vit__size="Ti",
        model__vit__patch_size=16,
        model__latent_dim=192,
        train__epochs=8,
        train__batch_size=64,
        eval__readout="embedding",
        eval__image_size=(64, 64),  # tokens of five channels are many: attention grows with their square
    )
