"""Vision transformer: an encoder of images with any number of channels.

Dosovitskiy et al. 2020 (arXiv 2010.11929): patches, a class token, pre-norm blocks. With the options of the published
weights: fixed positions (ViTMAE, He et al. 2021, arXiv 2111.06377) and LayerScale (DINOv2, Oquab et al. 2023, arXiv
2304.07193). One token per patch holds either all channels, or one channel (Bao et al. 2023, arXiv 2309.16108; Kraus et
al. 2024, arXiv 2404.10242).
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.models.layers.broadcast import broadcast, take
from bie_jax.models.layers.channels import expand, join_channels
from bie_jax.models.layers.norm import layer_norm
from bie_jax.models.layers.patches import Grid, patch_grid, patchify
from bie_jax.models.layers.positions import LearntTable, sincos_positions, token_init
from bie_jax.models.layers.transformer import ViTSize, dense, stack_of_blocks

SIZES = {
    "Ti": ViTSize(192, 12, 3, 768),
    "S": ViTSize(384, 12, 6, 1536),
    "B": ViTSize(768, 12, 12, 3072),
    "L": ViTSize(1024, 24, 16, 4096),
    "H": ViTSize(1280, 32, 16, 5120),
}


class ViTEncoder(nn.Module):
    """[B, H, W, C] -> [B, H/p, W/p, D]: the patches' tokens after the last norm. The class token is not among them.

    Attributes:
        size: one of `SIZES`, or another.
        patch_size: p, pixels.
        positions: "sincos", fixed (see `sincos_positions`), for any image size; "learnt", for the size of the first
            image alone.
        layer_scale: see `Block`.
        channel_tokens: False: a token per patch, which holds all channels. True: a token per patch and channel, through
            one projection that all channels share, with a learned embedding of the channel added.
        channel_dropout: probability with which a channel of an example is left out in training; at least one that is
            there stays. Needs `channel_tokens`, and draws from "noise".
        norm_epsilon: of every layer norm: 1e-6 in DINOv2 and in the code of He et al., 1e-12 in `transformers`' ViT
            and ViTMAE.
        remat: see `stack_of_blocks`.
        cpu_kernels: see `bie_jax.models.kernels`.
    """

    size: ViTSize
    patch_size: int
    positions: Literal["sincos", "learnt"]
    layer_scale: bool = False
    channel_tokens: bool = False
    channel_dropout: float = 0.0
    norm_epsilon: float = 1e-6
    remat: bool = False
    cpu_kernels: bool = True

    def setup(self) -> None:
        """Make the parts; which arrays there are depends on the attributes."""
        width = self.size.width
        self.patch_embed = dense(width, axes=3, cpu_kernels=self.cpu_kernels)
        self.class_token = self.param("class_token", token_init, (width,))
        if self.positions == "learnt":
            self.class_pos_embed = self.param("class_pos_embed", token_init, (width,))
            self.pos_embed = LearntTable("rows and columns of patches; positions='sincos' takes any size")
        if self.channel_tokens:
            self.channel_embed = LearntTable("channels")
        self.blocks = stack_of_blocks(
            self.size,
            self.norm_epsilon,
            layer_scale=self.layer_scale,
            remat=self.remat,
            cpu_kernels=self.cpu_kernels,
        )
        self.norm = layer_norm(self.norm_epsilon)

    def __call__(self, image: jax.Array, channel_mask: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Encode.

        Args:
            image: [B, H, W, C] float; p divides H and W.
            channel_mask: [B, C] bool, the channels that there are; None: all. What the others hold changes nothing.
            train: whether channels are left out.

        Returns:
            [B, H/p, W/p, D]; of `channel_tokens` the mean over the channels that are there, 0 without any.

        Raises:
            ValueError: if patches do not cover the image, or learned positions or channels are of others.
        """
        tokens, kept = self.tokens(image, channel_mask, train=train)
        return join_channels(tokens, kept, "mean") if self.channel_tokens else tokens[:, 0]

    def tokens(
        self, image: jax.Array, channel_mask: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Every token, and the channels that have any.

        Args:
            image: as in `__call__`.
            channel_mask: as in `__call__`.
            train: as in `__call__`.

        Returns:
            tokens: [B, C, H/p, W/p, D], 0 for a channel that is not kept. Without `channel_tokens` all channels share
                one token, and C is 1.
            kept: [B, C] bool: in `channel_mask`, and not left out by `channel_dropout`.
        """
        grid = patch_grid(image.shape, self.patch_size)
        image, kept = self.keep_channels(image, channel_mask, train=train)
        channels = image.shape[-1] if self.channel_tokens else 1
        tokens = self.embed(self.patches(image), grid, channels)
        present = None if kept is None else jnp.repeat(kept, tokens.shape[1] // channels, axis=1)
        tokens = self.transform(tokens, present)[:, 1:].reshape(-1, channels, *grid, self.size.width)
        if kept is None:
            return tokens, jnp.ones(tokens.shape[:2], bool)
        return jnp.where(kept[:, :, None, None, None], tokens, 0), kept

    def class_features(self, image: jax.Array) -> jax.Array:
        """The class token after the last norm, what published ViTs are read by: [B, H, W, C] -> [B, D]."""
        grid = patch_grid(image.shape, self.patch_size)
        channels = image.shape[-1] if self.channel_tokens else 1
        return self.transform(self.embed(self.patches(image), grid, channels), None)[:, 0]

    def keep_channels(
        self, image: jax.Array, channel_mask: jax.Array | None, *, train: bool
    ) -> tuple[jax.Array, jax.Array | None]:
        """The image with 0 in channels that are not there, and `kept` (see `tokens`) or None where that is all True."""
        kept = channel_mask
        if self.channel_tokens and self.channel_dropout and train:
            shape = (image.shape[0], image.shape[-1])
            present = jnp.ones(shape, bool) if kept is None else kept
            kept = drop_channels(jax.random.uniform(self.make_rng("noise"), shape), present, self.channel_dropout)
        if kept is not None:
            image = jnp.where(kept[:, None, None, :], image, 0)
        return image, kept if self.channel_tokens else None

    def patches(self, image: jax.Array) -> jax.Array:
        """What each token is made of: [B, N, p p C]; of `channel_tokens` [B, C N, p p], channel by channel."""
        if not self.channel_tokens:
            return patchify(image, self.patch_size)
        return patchify(expand(image), self.patch_size).reshape(image.shape[0], -1, self.patch_size**2)

    def embed(self, patches: jax.Array, grid: Grid, channels: int, ids: jax.Array | None = None) -> jax.Array:
        """Tokens with their positions and channels, as the blocks take them.

        Args:
            patches: [B, T, *], of `patches`.
            grid: of the whole image.
            channels: C of the tokens, 1 without `channel_tokens`.
            ids: [B, T] int32, which of the image's tokens `patches` are; None: all, in order.

        Returns:
            [B, T, D].
        """
        p = self.patch_size
        tokens = self.patch_embed(patches.reshape(*patches.shape[:2], p, p, -1))
        if self.positions == "learnt":
            positions = self.pos_embed((*grid, self.size.width))
        else:
            positions = jnp.asarray(sincos_positions(grid, self.size.width), tokens.dtype)
        positions = positions.reshape(1, -1, self.size.width)  # [1, N, D]
        shape = (channels, *positions.shape[1:])
        added = broadcast(positions, shape)
        if self.channel_tokens:
            added = added + broadcast(self.channel_embed((channels, self.size.width))[:, None], shape)
        added = added.reshape(-1, self.size.width)
        return tokens + (broadcast(added, tokens.shape) if ids is None else take(added, ids))

    def transform(self, tokens: jax.Array, present: jax.Array | None) -> jax.Array:
        """Class token, blocks and norm: [B, T, D], the tokens that are there [B, T] bool -> [B, 1 + T, D]."""
        batch_size, _, width = tokens.shape
        first = self.class_token
        if self.positions == "learnt":
            first = first + self.class_pos_embed
        tokens = jnp.concatenate([broadcast(first, (batch_size, 1, width)), tokens], axis=1)
        if present is not None:
            present = jnp.concatenate([jnp.ones((batch_size, 1), bool), present], axis=1)
        tokens, _ = self.blocks(tokens, present)
        return self.norm(tokens)


def drop_channels(noise: jax.Array, present: jax.Array, rate: float) -> jax.Array:
    """Leave channels out, but never all that there are.

    Args:
        noise: [B, C] uniform in [0, 1).
        present: [B, C] bool.
        rate: in [0, 1), probability to be left out.

    Returns:
        [B, C] bool, part of `present`: the channels with noise >= rate, or the one with most noise where that is none.
    """
    highest = jnp.where(present, noise, -1.0).max(axis=1, keepdims=True)
    return present & (noise >= jnp.minimum(rate, highest))
