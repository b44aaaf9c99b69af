"""Networks. `build_model` is the one place where a configuration becomes a network."""

from typing import Any

import flax.linen as nn

from bie_jax.models import residual_stack, resnet
from bie_jax.models.autoencoder import VQVAE
from bie_jax.models.bottleneck import GridBottleneck, GroupedBottleneck


def build_model(config: Any, num_channels: int) -> nn.Module:
    """The network that `config.model` describes.

    Args:
        config: the checked `model` group of a configuration.
        num_channels: C of the images.
    """
    return {"vqvae": _build_vqvae}[config.name](config, num_channels)


def encoder_stride(config: Any) -> int:
    """Input pixels per position of the encoder's output; image sizes must be multiples of it."""
    return {"residual_stack": 2**config.residual_stack.num_halvings, "resnet": resnet.STRIDE}[config.encoder]


def _build_vqvae(config: Any, num_channels: int) -> VQVAE:
    encoder, decoder = {"residual_stack": _residual_stack_pair, "resnet": _resnet_pair}[config.encoder](
        config, num_channels
    )
    quantizer = config.quantizer
    shared = {
        "num_codes": quantizer.num_codes,
        "commitment_cost": quantizer.commitment_cost,
        "ema_decay": quantizer.ema_decay,
        "restart_threshold": quantizer.restart_threshold,
    }
    if config.bottleneck == "grid":
        bottleneck = GridBottleneck(code_dim=quantizer.code_dim, **shared)
    else:
        bottleneck = GroupedBottleneck(config.latent_dim, num_groups=config.latent_dim // quantizer.code_dim, **shared)
    return VQVAE(encoder, bottleneck, decoder)


def _residual_stack_pair(config: Any, num_channels: int) -> tuple[nn.Module, nn.Module]:
    sizes = dict(config.residual_stack)
    return (
        residual_stack.ResidualStackEncoder(**sizes),
        residual_stack.ResidualStackDecoder(num_channels=num_channels, **sizes),
    )


def _resnet_pair(config: Any, num_channels: int) -> tuple[nn.Module, nn.Module]:
    depth = config.resnet.depth
    return resnet.ResNetEncoder(depth), resnet.ResNetDecoder(depth, num_channels)
