"""Masked autoencoder with a ViT-S/16 on idr0093 (5 channels, 16 bit), or on simulated plates like its own.

    python launch.py --config=configs/mae_idr0093.py               the real set, once built
    python launch.py --config=configs/mae_idr0093.py:simulated     simulated plates, minutes on 2 CPU cores
    python launch.py --config=configs/mae_idr0093.py:tiny          simulated plates, seconds; what the tests run

AdamW, its betas and weight decay and its rate, 1.5e-4 for 256 images and less for fewer, are those of He et al. 2021
(arXiv 2111.06377), table 8; warmup is 5 of 100 epochs (theirs 40 of 800).
`experiments/quality` has scores of a small one beside the other methods' and the baselines.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    """The configuration of one variant: "", "simulated" or "tiny"."""
    config = base.get_config(variant, "mae_idr0093")
    config.model.name = "mae"
    config.model.encoder = "vit"
    config.model.latent_dim = 384  # the encoder's own width
    config.optimizer.name = "adamw"
    # For the batch size of base.py: with another one on the command line, give this too.
    config.optimizer.lr = 1.5e-4 * config.train.batch_size / 256
    config.optimizer.beta2 = 0.95
    config.optimizer.weight_decay = 0.05
    config.optimizer.decay_biases_and_norms = False
    config.optimizer.clip_norm = 0.0
    config.optimizer.min_lr = 0.0
    if variant:
        config.model.vit.size = "Ti"
        config.model.latent_dim = 192
        config.model.vit.patch_size = 8
        config.model.vit.decoder_width = 192
        config.model.vit.decoder_depth = 2
        config.model.vit.decoder_heads = 6
        config.optimizer.lr = 1e-3
    return config
