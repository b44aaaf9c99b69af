"""What each method minimizes: one file a method, and one line here."""

import flax.linen as nn

from bie_jax.config.schema import Config
from bie_jax.objectives.ae import AE
from bie_jax.objectives.base import Method
from bie_jax.objectives.dino import DINO
from bie_jax.objectives.lejepa import LEJEPA
from bie_jax.objectives.mae import MAE
from bie_jax.objectives.simclr import SIMCLR
from bie_jax.objectives.vae import VAE
from bie_jax.objectives.vqvae import VQVAE

METHODS: dict[str, Method] = {
    "ae": AE,
    "vae": VAE,
    "vqvae": VQVAE,
    "mae": MAE,
    "simclr": SIMCLR,
    "dino": DINO,
    "lejepa": LEJEPA,
}


def build_model(config: Config, num_channels: int) -> nn.Module:
    """The network that a checked configuration describes, for images of `num_channels` channels."""
    return METHODS[config.model.name].build(
        config.model,
        num_channels,
        image_size=config.data.crop_size,
        remat=config.train.remat,
        num_microbatches=config.train.accumulate_steps,
    )
