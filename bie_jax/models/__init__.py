"""Networks. The builders here are the one place where a configuration becomes a network."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from bie_jax.models.autoencoder import Autoencoder, ChannelTokenAutoencoder, IndependentChannels
from bie_jax.models.bottleneck import DenseBottleneck, GaussianBottleneck, GridBottleneck, PooledBottleneck
from bie_jax.models.encoders import residual_stack, resnet
from bie_jax.models.encoders.ring import MatrixDecoder, PointsDecoder, RingEncoder
from bie_jax.models.encoders.vit import SIZES, ViTDecoder, ViTEncoder
from bie_jax.models.mae import MAE
from bie_jax.models.quantizers.finite_scalar import FiniteScalarQuantizer
from bie_jax.models.quantizers.gradient import GradientVectorQuantizer
from bie_jax.models.quantizers.residual import ResidualQuantizer
from bie_jax.models.quantizers.vector import VectorQuantizer

# Channels of the map that a latent vector is spread to.
_MAP_FEATURES = 512


def build_autoencoder(
    config: Any, num_channels: int, *, image_size: tuple[int, int], remat: bool, parts: int
) -> nn.Module:
    """The network of "ae", "vae" and "vqvae".

    Args:
        config: the checked `model` group of a configuration.
        num_channels: C of the images.
        image_size: (height, width) of a training view; decoders of shapes make matrices of this size.
        remat: whether blocks are computed again for the gradient instead of kept in memory.
        parts: calls of the network that make one optimizer step.
    """
    if config.channels == "independent":
        shares = num_channels if config.channel_readout == "concat" else 1
        bottleneck = _bottleneck(config, config.latent_dim // shares, parts)
        network = Autoencoder(_encoder(config, remat), bottleneck, _decoder(config, 1, image_size, remat))
        return IndependentChannels(network, config.channel_readout)
    kind = ChannelTokenAutoencoder if config.channels == "tokens" else Autoencoder
    return kind(
        _encoder(config, remat),
        _bottleneck(config, config.latent_dim, parts),
        _decoder(config, num_channels, image_size, remat),
    )


def build_mae(config: Any, num_channels: int, *, image_size: tuple[int, int], remat: bool, parts: int) -> MAE:
    """The network of "mae" (arguments as `build_autoencoder`)."""
    del image_size, parts  # it decodes patches, and keeps no codes
    vit = config.vit
    return MAE(
        encoder=_vit_encoder(config, remat),
        num_channels=num_channels,
        latent_dim=config.latent_dim,
        mask_ratio=config.mae.mask_ratio,
        norm_pix_loss=config.mae.norm_pix_loss,
        channel_readout=config.channel_readout,
        decoder_width=vit.decoder_width,
        decoder_depth=vit.decoder_depth,
        decoder_heads=vit.decoder_heads,
    )


def encoder_stride(config: Any) -> int:
    """Input pixels per position of the encoder's output; image sizes must be multiples of it."""
    return {
        "residual_stack": 2**config.residual_stack.num_halvings,
        "resnet": resnet.STRIDE,
        "vit": config.vit.patch_size,
        "ring": 2,
    }[config.encoder]


def has_fixed_size(config: Any) -> bool:
    """Whether a network takes images of one size only."""
    spreads_densely = config.name in ("ae", "vae") or (config.name == "vqvae" and config.bottleneck == "pooled")
    decodes_points = config.decoder != "mirror"
    learns_positions = config.encoder == "vit" and config.vit.positions == "learnt"
    return (spreads_densely and config.spread == "dense") or learns_positions or decodes_points


def build_quantizer(config: Any, *, parts: int) -> nn.Module:
    """What makes codes of vectors (`config.model.quantizer`; `parts` as in `build_autoencoder`)."""
    if config.name == "fsq":
        return FiniteScalarQuantizer(config.levels)
    if config.name == "gradient":
        return GradientVectorQuantizer(
            config.num_codes,
            config.code_dim,
            config.num_groups,
            commitment_cost=config.commitment_cost,
            codebook_cost=config.codebook_cost,
            ema_decay=config.ema_decay,
            restart_threshold=config.restart_threshold,
            kmeans_iterations=config.kmeans_iterations,
            num_microbatches=parts,
        )
    quantizer = VectorQuantizer(
        config.num_codes,
        config.code_dim,
        config.num_groups,
        commitment_cost=config.commitment_cost,
        ema_decay=config.ema_decay,
        restart_threshold=config.restart_threshold,
        kmeans_iterations=config.kmeans_iterations,
        num_microbatches=parts,
    )
    return ResidualQuantizer(quantizer, config.num_residuals) if config.name == "residual" else quantizer


def _bottleneck(config: Any, latent_dim: int, parts: int) -> nn.Module:
    to_map = {"spread": config.spread, "map_features": _MAP_FEATURES}
    if config.name == "ae":
        return DenseBottleneck(latent_dim, **to_map)
    if config.name == "vae":
        return GaussianBottleneck(latent_dim, **to_map)
    quantizer = build_quantizer(config.quantizer, parts=parts)
    return GridBottleneck(quantizer) if config.bottleneck == "grid" else PooledBottleneck(quantizer, **to_map)


def _encoder(config: Any, remat: bool) -> nn.Module:
    encoders: dict[str, Callable[[], nn.Module]] = {
        "residual_stack": lambda: residual_stack.ResidualStackEncoder(**dict(config.residual_stack), remat=remat),
        "resnet": lambda: resnet.ResNetEncoder(config.resnet.depth, remat, config.resnet.padding),
        "vit": lambda: _vit_encoder(config, remat),
        "ring": lambda: RingEncoder(**dict(config.ring)),
    }
    return encoders[config.encoder]()


def _decoder(config: Any, num_channels: int, image_size: tuple[int, int], remat: bool) -> nn.Module:
    vit = config.vit
    decoders: dict[str, Callable[[], nn.Module]] = {
        "residual_stack": lambda: residual_stack.ResidualStackDecoder(
            num_channels=num_channels, **dict(config.residual_stack), remat=remat
        ),
        "resnet": lambda: resnet.ResNetDecoder(config.resnet.depth, num_channels, remat, config.resnet.padding),
        "vit": lambda: ViTDecoder(
            num_channels, vit.patch_size, vit.decoder_width, vit.decoder_depth, vit.decoder_heads, remat=remat
        ),
        "points": lambda: PointsDecoder(image_size[0]),
        "matrix": lambda: MatrixDecoder(image_size[0]),
    }
    return decoders[config.encoder if config.decoder == "mirror" else config.decoder]()


def _vit_encoder(config: Any, remat: bool) -> ViTEncoder:
    vit = config.vit
    return ViTEncoder(
        SIZES[vit.size],
        vit.patch_size,
        positions=vit.positions,
        layer_scale=vit.layer_scale,
        channel_tokens=config.channels == "tokens",
        channel_dropout=config.channel_dropout,
        remat=remat,
    )
