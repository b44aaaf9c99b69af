"""Networks. The builders here are the one place where a configuration becomes a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn

from bie_jax.models.autoencoder import Autoencoder, ChannelTokenAutoencoder, IndependentChannels
from bie_jax.models.bottlenecks.dense import DenseBottleneck
from bie_jax.models.bottlenecks.gaussian import GaussianBottleneck
from bie_jax.models.bottlenecks.projected import ProjectedBottleneck
from bie_jax.models.bottlenecks.quantized import GridBottleneck, PooledBottleneck
from bie_jax.models.decoders.matrix import MatrixDecoder
from bie_jax.models.decoders.points import PointsDecoder
from bie_jax.models.decoders.residual_stack import ResidualStackDecoder
from bie_jax.models.decoders.resnet import ResNetDecoder
from bie_jax.models.decoders.vit import ViTDecoder
from bie_jax.models.encoders import resnet
from bie_jax.models.encoders.residual_stack import ResidualStackEncoder
from bie_jax.models.encoders.resnet import ResNetEncoder
from bie_jax.models.encoders.ring import RingEncoder
from bie_jax.models.encoders.vit import SIZES, ViTEncoder
from bie_jax.models.head import ProjectionHead, WithHead
from bie_jax.models.mae import MAE
from bie_jax.models.quantizers.finite_scalar import FiniteScalarQuantizer
from bie_jax.models.quantizers.gradient import GradientVectorQuantizer
from bie_jax.models.quantizers.residual import ResidualQuantizer
from bie_jax.models.quantizers.vector import VectorQuantizer

if TYPE_CHECKING:
    from bie_jax.config.schema import ModelConfig, QuantizerConfig

# Channels of the map that a latent vector is spread to.
_MAP_FEATURES = 512


def build_autoencoder(
    config: ModelConfig, num_channels: int, *, image_size: tuple[int, int], remat: bool, num_microbatches: int
) -> nn.Module:
    """The network of "ae", "vae" and "vqvae".

    Args:
        config: the checked `model` group of a configuration.
        num_channels: C of the images.
        image_size: (height, width) of a training view; decoders of shapes make matrices of this size.
        remat: whether blocks are computed again for the gradient instead of kept in memory.
        num_microbatches: calls of the network that make one optimizer step.
    """
    encoder = _encoder(config, remat)
    if config.channels == "independent":
        shares = num_channels if config.channel_readout == "concat" else 1
        bottleneck = _bottleneck(config, config.latent_dim // shares, num_microbatches)
        network = Autoencoder(encoder, bottleneck, _decoder(config, 1, image_size, remat))
        return IndependentChannels(network, config.channel_readout)
    kind = ChannelTokenAutoencoder if config.channels == "tokens" else Autoencoder
    bottleneck = _bottleneck(config, config.latent_dim, num_microbatches)
    return kind(encoder, bottleneck, _decoder(config, num_channels, image_size, remat))


def build_mae(
    config: ModelConfig, num_channels: int, *, image_size: tuple[int, int], remat: bool, num_microbatches: int
) -> MAE:
    """The network of "mae" (arguments as `build_autoencoder`)."""
    del image_size, num_microbatches  # it decodes patches, and keeps no codes
    return MAE(
        encoder=_vit_encoder(config, remat),
        num_channels=num_channels,
        latent_dim=config.latent_dim,
        mask_ratio=config.mae.mask_ratio,
        norm_pix_loss=config.mae.norm_pix_loss,
        channel_readout=config.channel_readout,
        decoder_width=config.vit.decoder_width,
        decoder_depth=config.vit.decoder_depth,
        decoder_heads=config.vit.decoder_heads,
    )


def build_with_head(
    config: ModelConfig, num_channels: int, *, image_size: tuple[int, int], remat: bool, num_microbatches: int
) -> WithHead:
    """The network of "simclr" and "lejepa" (arguments as `build_autoencoder`)."""
    network = build_autoencoder(
        config, num_channels, image_size=image_size, remat=remat, num_microbatches=num_microbatches
    )
    return WithHead(network, _head(config, 0))


def build_with_prototypes(
    config: ModelConfig, num_channels: int, *, image_size: tuple[int, int], remat: bool, num_microbatches: int
) -> WithHead:
    """The network of "dino" (arguments as `build_autoencoder`)."""
    network = build_autoencoder(
        config, num_channels, image_size=image_size, remat=remat, num_microbatches=num_microbatches
    )
    return WithHead(network, _head(config, config.head.num_prototypes))


def build_quantizer(config: QuantizerConfig, *, num_microbatches: int) -> nn.Module:
    """What makes codes of vectors (`config.model.quantizer`; `num_microbatches` as in `build_autoencoder`)."""
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
            num_microbatches=num_microbatches,
        )
    quantizer = VectorQuantizer(
        config.num_codes,
        config.code_dim,
        config.num_groups,
        commitment_cost=config.commitment_cost,
        ema_decay=config.ema_decay,
        restart_threshold=config.restart_threshold,
        kmeans_iterations=config.kmeans_iterations,
        num_microbatches=num_microbatches,
    )
    return ResidualQuantizer(quantizer, config.num_residuals) if config.name == "residual" else quantizer


def encoder_stride(config: ModelConfig) -> int:
    """Input pixels per position of the encoder's output; image sizes must be multiples of it."""
    match config.encoder:
        case "residual_stack":
            return 2**config.residual_stack.num_halvings
        case "resnet":
            return resnet.STRIDES[config.resnet.stem]
        case "vit":
            return config.vit.patch_size
        case "ring":
            return 2


def has_fixed_size(config: ModelConfig) -> bool:
    """Whether a network takes images of one size only."""
    vectors_are_spread = config.decoder != "none" and config.name != "mae"
    spreads_densely = vectors_are_spread and not (config.name == "vqvae" and config.bottleneck == "grid")
    decodes_points = config.decoder in ("points", "matrix")
    learns_positions = config.encoder == "vit" and config.vit.positions == "learnt"
    return (spreads_densely and config.spread == "dense") or learns_positions or decodes_points


def supports_remat(config: ModelConfig) -> bool:
    """Whether a network has blocks that can be computed again for the gradient instead of kept in memory."""
    return config.encoder != "ring"


def _encoder(config: ModelConfig, remat: bool) -> nn.Module:
    match config.encoder:
        case "residual_stack":
            stack = config.residual_stack
            return ResidualStackEncoder(
                num_hiddens=stack.num_hiddens,
                num_residual_hiddens=stack.num_residual_hiddens,
                num_residual_layers=stack.num_residual_layers,
                num_halvings=stack.num_halvings,
                remat=remat,
                cpu_kernels=config.cpu_kernels,
            )
        case "resnet":
            settings = config.resnet
            return ResNetEncoder(
                settings.depth, settings.width, settings.stem, remat, settings.padding, config.cpu_kernels
            )
        case "vit":
            return _vit_encoder(config, remat)
        case "ring":
            ring = config.ring
            return RingEncoder(ring.width, ring.depth, ring.kernel_size, ring.keeps)


def _vit_encoder(config: ModelConfig, remat: bool) -> ViTEncoder:
    return ViTEncoder(
        SIZES[config.vit.size],
        config.vit.patch_size,
        positions=config.vit.positions,
        layer_scale=config.vit.layer_scale,
        channel_tokens=config.channels == "tokens",
        channel_dropout=config.channel_dropout,
        remat=remat,
        cpu_kernels=config.cpu_kernels,
    )


def _bottleneck(config: ModelConfig, latent_dim: int, num_microbatches: int) -> nn.Module:
    if config.decoder == "none":
        return ProjectedBottleneck(latent_dim, config.cpu_kernels)
    if config.name == "vae":
        return GaussianBottleneck(latent_dim, config.spread, _MAP_FEATURES, config.cpu_kernels)
    if config.name != "vqvae":
        return DenseBottleneck(latent_dim, config.spread, _MAP_FEATURES, config.cpu_kernels)
    quantizer = build_quantizer(config.quantizer, num_microbatches=num_microbatches)
    if config.bottleneck == "grid":
        return GridBottleneck(quantizer, config.cpu_kernels)
    return PooledBottleneck(quantizer, config.spread, _MAP_FEATURES, config.cpu_kernels)


def _head(config: ModelConfig, num_prototypes: int) -> ProjectionHead:
    head = config.head
    return ProjectionHead(head.width, head.depth, head.output_dim, num_prototypes, config.cpu_kernels)


def _decoder(config: ModelConfig, num_channels: int, image_size: tuple[int, int], remat: bool) -> nn.Module | None:
    match config.encoder if config.decoder == "mirror" else config.decoder:
        case "residual_stack":
            stack = config.residual_stack
            return ResidualStackDecoder(
                num_channels=num_channels,
                num_hiddens=stack.num_hiddens,
                num_residual_hiddens=stack.num_residual_hiddens,
                num_residual_layers=stack.num_residual_layers,
                num_halvings=stack.num_halvings,
                remat=remat,
                cpu_kernels=config.cpu_kernels,
            )
        case "resnet":
            settings = config.resnet
            return ResNetDecoder(
                settings.depth,
                num_channels,
                settings.width,
                settings.stem,
                remat,
                settings.padding,
                config.cpu_kernels,
            )
        case "vit":
            return ViTDecoder(
                num_channels,
                config.vit.patch_size,
                config.vit.decoder_width,
                config.vit.decoder_depth,
                config.vit.decoder_heads,
                remat=remat,
                cpu_kernels=config.cpu_kernels,
            )
        case "points":
            return PointsDecoder(image_size[0], config.cpu_kernels)
        case "matrix":
            return MatrixDecoder(image_size[0], cpu_kernels=config.cpu_kernels)
        case "none":
            return None
        case "ring":
            raise AssertionError("the schema refuses a mirrored ring: its matrices have decoders of their own")
