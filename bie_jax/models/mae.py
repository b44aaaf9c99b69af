"""Masked autoencoder: a ViT that sees part of an image's patches, and a light decoder that fills in the others.

He et al. 2021 (arXiv 2111.06377). With an encoder of `channel_tokens` it is the channel-agnostic form of Kraus et al.
2024 (arXiv 2404.10242): patches are removed from every channel on its own, and each channel is decoded on its own. Two
differences from that paper: one decoder with an embedding of the channel stands for its decoder per channel, and
without the cross-attention over all channels before it, so that a decoder of any number of channels has one size and
channels meet in the encoder alone.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.models.decoders.mae import MAEDecoder
from bie_jax.models.encoders.vit import ViTEncoder
from bie_jax.models.layers.channels import contract_image, join_channels
from bie_jax.models.layers.masking import random_masking
from bie_jax.models.layers.patches import Grid, patch_grid, unpatchify
from bie_jax.models.layers.transformer import ViTSize, dense
from bie_jax.models.readouts import pooled


class MAE(nn.Module):
    """Masked autoencoder.

    Attributes:
        encoder: of `channel_tokens` or not; its `norm_epsilon`, `remat` and `cpu_kernels` hold for the decoder too.
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
        projects = token_dim != self.encoder.size.width
        self.latent = dense(token_dim, cpu_kernels=self.encoder.cpu_kernels) if projects else None
        self.decoder = MAEDecoder(
            size=ViTSize(self.decoder_width, self.decoder_depth, self.decoder_heads, 4 * self.decoder_width),
            patch_values=self.encoder.patch_size**2 * (1 if self.encoder.channel_tokens else self.num_channels),
            channel_tokens=self.encoder.channel_tokens,
            norm_epsilon=self.encoder.norm_epsilon,
            remat=self.encoder.remat,
            cpu_kernels=self.encoder.cpu_kernels,
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
            out: `embedding` [B, latent_dim], the mean of `z`; of the tokens `features` [B, D], their mean, and
                after training `statistics` [B, 3 D] (see `bie_jax.models.readouts`); of `channel_tokens` also
                `channels_kept` [B, C] bool, the channels of which a token is seen, and `channel_embeddings` [B, C, d],
                0 for the others.
        """
        tokens, kept = self.encoder.tokens(image, channel_mask, train=train)  # [B, C', h, w, D]
        latent = self._project(tokens)
        b, _, rows, columns, _ = latent.shape
        by_position = jnp.moveaxis(latent, 1, 3).reshape(b * rows * columns, kept.shape[1], -1)
        present = jnp.repeat(kept, rows * columns, axis=0)
        z = join_channels(by_position, present, self.channel_readout).reshape(b, rows, columns, -1)
        out = self._readout(tokens.mean(axis=(2, 3)), latent.mean(axis=(2, 3)), kept)
        return z, out | pooled(join_channels(tokens, kept, "mean"), train=train)

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
