"""Masked autoencoder: a ViT that sees part of an image's patches, and a light decoder that fills in the others.

He et al. 2021 (arXiv 2111.06377). With an encoder of `channel_tokens` it is the channel-agnostic form of Kraus et al.
2024 (arXiv 2404.10242): patches are removed from every channel on its own, and each channel is decoded on its own. Two
differences from that paper: one decoder with an embedding of the channel stands for its decoder per channel, and
without the cross-attention over all channels before it, so that a decoder of any number of channels has one size and
channels meet in the encoder alone.
"""

from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bie_jax.models.autoencoder import contract_image, join_channels
from bie_jax.models.encoders.vit import (
    Grid,
    LearntTable,
    ViTEncoder,
    ViTSize,
    dense,
    layer_norm,
    patch_grid,
    sincos_positions,
    stack_of_blocks,
    token_init,
    unpatchify,
)
from bie_jax.models.layers.broadcast import broadcast


class Masking(NamedTuple):
    """Which tokens are removed.

    Attributes:
        ids_shuffle: [B, N] int32, the tokens in a random order, those that are kept first.
        ids_keep: [B, n] int32, the first n of them.
        ids_restore: [B, N] int32, the place of each token in that order; the inverse of `ids_shuffle`.
        token_mask: [B, N] bool, 1 = removed; 0 for tokens that are kept and for those that are not there.
        kept: [B, N] bool, 1 = kept.
        filled: [B, n] bool, which of `ids_keep` are kept tokens: the others fill the rows of examples with fewer.
    """

    ids_shuffle: jax.Array
    ids_keep: jax.Array
    ids_restore: jax.Array
    token_mask: jax.Array
    kept: jax.Array
    filled: jax.Array


def random_masking(noise: jax.Array, mask_ratio: float, present: jax.Array | None = None) -> Masking:
    """Remove tokens at random: an example with N of them keeps the int(N (1 - mask_ratio)) with the least noise.

    Args:
        noise: [B, N] float, finite.
        mask_ratio: share that is removed, in (0, 1).
        present: [B, N] bool, the tokens that there are; the share is taken of them. None: all.

    Source:
        He et al. 2021, section 3 ("Masking"), as their code rounds.
    """
    tokens = noise.shape[1]
    keep_of = np.asarray([int(count * (1 - mask_ratio)) for count in range(tokens + 1)], np.int32)
    if present is None:
        present = jnp.ones(noise.shape, bool)
    keep = jnp.asarray(keep_of)[present.sum(axis=1)][:, None]  # [B, 1]
    ids_shuffle = jnp.argsort(jnp.where(present, noise, jnp.inf), axis=1)
    ids_restore = jnp.argsort(ids_shuffle, axis=1)
    slots = int(keep_of[-1])
    return Masking(
        ids_shuffle=ids_shuffle,
        ids_keep=ids_shuffle[:, :slots],
        ids_restore=ids_restore,
        token_mask=present & (ids_restore >= keep),
        kept=ids_restore < keep,
        filled=jnp.arange(slots)[None] < keep,
    )


class MAE(nn.Module):
    """Masked autoencoder.

    Attributes:
        encoder: of `channel_tokens` or not; its `norm_epsilon` and `remat` hold for the decoder too.
        num_channels: C of the images.
        latent_dim: length of the embedding. The encoder's own width: tokens go to the decoder as they are, as
            published. Another: a linear projection to this width stands between the two.
        mask_ratio: share of the tokens that is removed, in (0, 1).
        norm_pix_loss: whether patches are predicted less their own mean and over their own standard deviation.
        channel_readout: of `channel_tokens`: the embedding is the "mean" over the channels that there are, or "concat",
            latent_dim / C numbers of each.
        decoder_width: a multiple of 4 and of the heads.
        decoder_depth: blocks.
        decoder_heads: attention heads.
    """

    encoder: ViTEncoder
    num_channels: int
    latent_dim: int
    mask_ratio: float
    norm_pix_loss: bool
    channel_readout: Literal["mean", "concat"] = "mean"
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16

    def setup(self) -> None:
        """Make the parts.

        Raises:
            ValueError: if `latent_dim` cannot be shared out over the channels.
        """
        token_dim = self.latent_dim
        if self.encoder.channel_tokens and self.channel_readout == "concat":
            token_dim, rest = divmod(self.latent_dim, self.num_channels)
            if rest:
                raise ValueError(
                    f"model.latent_dim={self.latent_dim} with model.channel_readout='concat': it must be a multiple of "
                    f"the number of channels, {self.num_channels}"
                )
        self.latent = None if token_dim == self.encoder.size.width else dense(token_dim)
        self.decoder = MAEDecoder(
            size=ViTSize(self.decoder_width, self.decoder_depth, self.decoder_heads, 4 * self.decoder_width),
            patch_values=self.encoder.patch_size**2 * (1 if self.encoder.channel_tokens else self.num_channels),
            channel_tokens=self.encoder.channel_tokens,
            norm_epsilon=self.encoder.norm_epsilon,
            remat=self.encoder.remat,
        )

    def __call__(
        self,
        image: jax.Array,
        channel_mask: jax.Array | None = None,
        *,
        train: bool,
        noise: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Remove patches and predict them. T is the number of tokens: N patches, or C N of `channel_tokens`.

        Args:
            image: [B, H, W, C] float, normalized.
            channel_mask: [B, C] bool, the channels that there are; None: all. What the others hold changes nothing.
                Of `channel_tokens` their tokens are neither seen nor removed (a channel that `channel_dropout` leaves
                out is treated alike); otherwise they are 0 for encoder and target.
            train: whether the encoder leaves channels out.
            noise: [B, T] float, decides what is removed (see `random_masking`); None: drawn from "noise".

        Returns:
            reconstruction: [B, H, W, C]: the image where patches are kept, the prediction (in the image's own scale)
                where they are removed, 0 in channels that are not there.
            out: `prediction` [B, T, p p C] (of `channel_tokens` p p); `target`, the same shape, what it should be;
                `token_mask` [B, T] bool, 1 = removed: the loss is over these. `embedding`, `features`,
                `channel_embeddings` and `channels_kept` as in `encode`, but of the kept tokens alone.
        """
        grid = patch_grid(image.shape, self.encoder.patch_size)
        image, present_channels = self.encoder.keep_channels(image, channel_mask, train=train)
        patches = self.encoder.patches(image)
        batch_size, tokens, _ = patches.shape
        positions = grid[0] * grid[1]
        channels = tokens // positions
        if noise is None:
            noise = jax.random.uniform(self.make_rng("noise"), (batch_size, tokens))
        present = None if present_channels is None else jnp.repeat(present_channels, positions, axis=1)
        masking = random_masking(noise, self.mask_ratio, present)

        seen = jnp.take_along_axis(patches, masking.ids_keep[..., None], axis=1)  # [B, n, *]
        embedded = self.encoder.embed(seen, grid, channels, masking.ids_keep)
        encoded = self.encoder.transform(embedded, None if present is None else masking.filled)  # [B, 1 + n, D]
        latent = self._project(encoded)
        prediction = self.decoder(latent, masking, grid, channels)
        mean, deviation = patch_scale(patches) if self.norm_pix_loss else (0.0, 1.0)
        target = ((patches - mean) / deviation).astype(patches.dtype)
        filled = jnp.where(masking.token_mask[..., None], prediction * deviation + mean, patches).astype(image.dtype)
        reconstruction = self._as_image(filled, grid)
        if channel_mask is not None:
            reconstruction = jnp.where(channel_mask[:, None, None, :], reconstruction, 0)

        # Which channel each kept token is of, [B, n, channels].
        member = jax.nn.one_hot(masking.ids_keep // positions, channels) * masking.filled[..., None]
        count = member.sum(axis=1)  # [B, channels]

        def mean_tokens(values: jax.Array) -> jax.Array:
            total = jnp.einsum("bnc,bnd->bcd", member, values[:, 1:])
            return (total / jnp.maximum(count, 1)[..., None]).astype(values.dtype)

        out = {"prediction": prediction, "target": target, "token_mask": masking.token_mask}
        return reconstruction, out | self._readout(mean_tokens(encoded), mean_tokens(latent), count > 0)

    def encode(
        self, image: jax.Array, channel_mask: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Embed whole images: no patch is removed, and nothing is drawn unless the encoder leaves channels out.

        Args:
            image: as in `__call__`.
            channel_mask: as in `__call__`.
            train: as in `__call__`.

        Returns:
            z: [B, H/p, W/p, latent_dim], the projected tokens, joined over channels as the embedding is.
            out: `embedding` [B, latent_dim], the mean of `z`; `features` [B, D], the mean of the encoder's tokens; of
                `channel_tokens` also `channels_kept` [B, C] bool, the channels of which a token is seen, and
                `channel_embeddings` [B, C, d], 0 for the others.
        """
        tokens, kept = self.encoder.tokens(image, channel_mask, train=train)  # [B, C', h, w, D]
        latent = self._project(tokens)
        b, _, rows, columns, _ = latent.shape
        by_position = jnp.moveaxis(latent, 1, 3).reshape(b * rows * columns, kept.shape[1], -1)
        present = jnp.repeat(kept, rows * columns, axis=0)
        z = join_channels(by_position, present, self.channel_readout).reshape(b, rows, columns, -1)
        return z, self._readout(tokens.mean(axis=(2, 3)), latent.mean(axis=(2, 3)), kept)

    def _project(self, tokens: jax.Array) -> jax.Array:
        return tokens if self.latent is None else self.latent(tokens)

    def _readout(self, features: jax.Array, latent: jax.Array, present: jax.Array) -> dict[str, jax.Array]:
        """Mean tokens [B, C', D] and projected ones [B, C', d], of the channels [B, C'] that have any."""
        out = {
            "features": join_channels(features, present, "mean"),
            "embedding": join_channels(latent, present, self.channel_readout),
        }
        if self.encoder.channel_tokens:
            out["channel_embeddings"] = jnp.where(present[..., None], latent, 0)
            out["channels_kept"] = present
        return out

    def _as_image(self, patches: jax.Array, grid: Grid) -> jax.Array:
        p = self.encoder.patch_size
        if not self.encoder.channel_tokens:
            return unpatchify(patches, grid, p)
        single = patches.reshape(-1, grid[0] * grid[1], p * p)  # [B C, N, p p]
        return contract_image(unpatchify(single, grid, p), self.num_channels)


class MAEDecoder(nn.Module):
    """Puts a learnt mask token where tokens were removed, and predicts every patch.

    Attributes:
        size: of its blocks.
        patch_values: numbers per token that are predicted.
        channel_tokens: whether each channel is decoded on its own, with a learnt embedding of the channel.
        norm_epsilon: of its layer norms.
        remat: see `bie_jax.models.encoders.vit.stack_of_blocks`.
    """

    size: ViTSize
    patch_values: int
    channel_tokens: bool
    norm_epsilon: float
    remat: bool

    @nn.compact
    def __call__(self, latent: jax.Array, masking: Masking, grid: Grid, channels: int) -> jax.Array:
        """Predict.

        Args:
            latent: [B, 1 + n, *], class token and kept tokens.
            masking: of T = channels x N tokens, channel by channel.
            grid: of the N patches.
            channels: 1 unless `channel_tokens`.

        Returns:
            [B, T, patch_values].
        """
        width = self.size.width
        x = dense(width, name="embed")(latent)
        batch_size, slots = masking.ids_keep.shape
        positions = grid[0] * grid[1]
        # Each row has a single 1 (a kept token) or none: the gradient is a matrix product too, where that of a gather
        # would be a scatter.
        place = jax.nn.one_hot(jnp.where(masking.kept, masking.ids_restore, -1), slots, dtype=x.dtype)  # [B, T, n]
        tokens = jnp.einsum("btn,bnd->btd", place, x[:, 1:], precision="highest")
        mask_token = self.param("mask_token", token_init, (width,))
        tokens = jnp.where(masking.kept[..., None], tokens, broadcast(mask_token, tokens.shape))
        tokens = tokens.reshape(batch_size, channels, positions, width)
        tokens = tokens + jnp.asarray(sincos_positions(grid, width), x.dtype).reshape(1, 1, positions, width)
        if self.channel_tokens:
            channel = LearntTable("channels", name="channel_embed")((channels, width))
            tokens = tokens + broadcast(channel[:, None], tokens.shape)
        first = broadcast(x[:, None, :1], (batch_size, channels, 1, width))
        x = jnp.concatenate([first, tokens], axis=2).reshape(batch_size * channels, 1 + positions, width)
        x, _ = stack_of_blocks(self.size, self.norm_epsilon, layer_scale=False, remat=self.remat, name="blocks")(
            x, None
        )
        x = layer_norm(self.norm_epsilon, name="norm")(x[:, 1:])
        return dense(self.patch_values, name="pred")(x).reshape(batch_size, channels * positions, -1)


def patch_scale(patches: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation [B, T, 1] float32 of each patch [B, T, *], as He et al.'s `norm_pix_loss` has them.

    The deviation is the root of the unbiased variance + 1e-6, so that a blank patch is 0.
    """
    patches = patches.astype(jnp.float32)
    mean = patches.mean(axis=-1, keepdims=True)
    return mean, jnp.sqrt(patches.var(axis=-1, ddof=1, keepdims=True) + 1e-6)


def by_channel(patches: jax.Array, image_shape: tuple[int, ...], patch_size: int) -> jax.Array:
    """Tokens of either form, each channel's pixels on their own: [B, T, *] -> [B, C, N, p p].

    Args:
        patches: [B, N, p p C] of patches of all channels, or [B, C N, p p] of `channel_tokens`.
        image_shape: (B, H, W, C).
        patch_size: p, pixels.
    """
    channels, pixels = image_shape[-1], patch_size**2
    positions = image_shape[1] * image_shape[2] // pixels
    if patches.shape[1] == positions:
        return jnp.moveaxis(patches.reshape(-1, positions, pixels, channels), -1, 1)
    return patches.reshape(-1, channels, positions, pixels)
