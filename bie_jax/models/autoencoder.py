"""An encoder, a bottleneck and a decoder, put together; and the same network over each channel alone."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.models.layers.channels import contract, contract_image, expand, join_channels
from bie_jax.models.readouts import pooled


class Autoencoder(nn.Module):
    """AE, VAE and VQ-VAE are this network; the bottleneck makes the difference.

    Attributes:
        encoder: [B, H, W, C] -> [B, h, w, F].
        bottleneck: [B, h, w, F] -> [B, h, w, *] and `out`.
        decoder: [B, h, w, *] -> [B, H, W, C]; None: nothing is drawn.
    """

    encoder: nn.Module
    bottleneck: nn.Module
    decoder: nn.Module | None

    def __call__(
        self, image: jax.Array, channel_mask: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array | None, dict[str, jax.Array]]:
        """Reconstruct.

        Args:
            image: [B, H, W, C] float, normalized.
            channel_mask: [B, C] bool, the channels that there are; examples without any teach nothing. None: all.
            train: whether batch statistics and codebooks learn from this batch, and latents are drawn rather than at
                their mean.

        Returns:
            reconstruction: [B, H, W, C], or None without a decoder.
            out: `embedding` [B, latent_dim]; of the encoder's output, before the bottleneck, `features` [B, F], the
                mean over positions, and after training `statistics` [B, 3 F] (see `bie_jax.models.readouts`);
                and what the bottleneck adds: `codes`, `commitment`, `perplexity`, `code_counts` of a quantizer (see
                `VectorQuantizer`), `mean` and `logvar` of a VAE.
        """
        z, out = self.encode(image, channel_mask, train=train)
        return None if self.decoder is None else self.decoder(z, _valid(channel_mask), train=train), out

    def encode(
        self, image: jax.Array, channel_mask: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """[B, H, W, C] -> decoder input [B, h, w, *] and `out` as in `__call__`."""
        return self.read(self.look(image, channel_mask, train=train), channel_mask, train=train)

    def look(self, image: jax.Array, channel_mask: jax.Array | None = None, *, train: bool) -> jax.Array:
        """The first half of `encode`, the encoder alone: [B, H, W, C] -> features [B, h, w, F]."""
        return self.encoder(image, channel_mask, train=train)

    def read(
        self, features: jax.Array, channel_mask: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The second half of `encode`: of features, or of what several views of an image have in the mean."""
        z, out = self.bottleneck(features, _valid(channel_mask), train=train)
        return z, out | pooled(features, train=train)

    def decode(self, embedding: jax.Array, height: int, width: int) -> jax.Array:
        """Images of embeddings: what the decoder makes of points of the latent space.

        Args:
            embedding: [B, latent_dim], of a bottleneck that has one vector per image.
            height: h of the decoder's input.
            width: w of it.

        Returns:
            [B, H, W, C].

        Raises:
            ValueError: without a decoder.
        """
        if self.decoder is None:
            raise ValueError("a network without a decoder makes no images of embeddings")
        return self.decoder(self.bottleneck.decode(embedding, height, width), None, train=False)


class ChannelTokenAutoencoder(Autoencoder):
    """An autoencoder whose ViT has tokens of its own for every channel.

    The bottleneck gets the mean of the channels' tokens at each position, so that a channel which was left out (see
    `ViTEncoder.channel_dropout`) is reconstructed from the others.
    """

    def encode(
        self, image: jax.Array, channel_mask: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """As `Autoencoder.encode`, and `out` has what belongs to the channels.

        `channel_embeddings` [B, C, F], the mean token of each, and `channels_kept` [B, C] bool, the channels that have
        tokens: the embeddings of the others are 0.
        """
        tokens, kept = self.encoder.tokens(image, channel_mask, train=train)  # [B, C, h, w, F], [B, C]
        features = join_channels(tokens, kept, "mean")
        z, out = self.bottleneck(features, _valid(channel_mask), train=train)
        channels = {"channel_embeddings": tokens.mean(axis=(2, 3)), "channels_kept": kept}
        return z, out | pooled(features, train=train) | channels


class IndependentChannels(nn.Module):
    """One network over every channel alone: it takes sets of any channels.

    Attributes:
        network: an `Autoencoder` of one channel.
        channel_readout: "mean" over the channels that there are, or "concat".
    """

    network: nn.Module
    channel_readout: Literal["mean", "concat"]

    def __call__(
        self, image: jax.Array, channel_mask: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array | None, dict[str, jax.Array]]:
        """Reconstruct each channel from itself; `out` as `Autoencoder` has it.

        What belongs to an image's channels gets an axis [B, C, ...] (`codes`, `mean`, `logvar`); `embedding`,
        `features`, `statistics` and `commitment` are joined over the channels, `channel_embeddings` is [B, C, d], and
        `channels_kept` [B, C] bool the channels that there are.
        """
        reconstruction, out = self.network(expand(image), _expand_mask(channel_mask), train=train)
        drawn = None if reconstruction is None else contract_image(reconstruction, image.shape[-1])
        return drawn, self._join(out, image, channel_mask)

    def encode(
        self, image: jax.Array, channel_mask: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """[B, H, W, C] -> decoder input [B C, h, w, *] and `out` as in `__call__`."""
        z, out = self.network.encode(expand(image), _expand_mask(channel_mask), train=train)
        return z, self._join(out, image, channel_mask)

    def _join(self, out: dict[str, jax.Array], image: jax.Array, channel_mask: jax.Array | None) -> dict[str, Any]:
        batch_size, channels = image.shape[0], image.shape[-1]
        of_batch = ("perplexity", "code_counts")
        each = {name: contract(value, channels) for name, value in out.items() if name not in of_batch}
        present = jnp.ones((batch_size, channels), bool) if channel_mask is None else channel_mask
        joined = each | {name: out[name] for name in of_batch if name in out}
        joined["channel_embeddings"] = each["embedding"]
        joined["channels_kept"] = present
        joined["embedding"] = join_channels(each["embedding"], present, self.channel_readout)
        for name in ("features", "statistics", "commitment"):
            if name in each:
                joined[name] = join_channels(each[name], present, "mean")
        return joined


def _expand_mask(channel_mask: jax.Array | None) -> jax.Array | None:
    return None if channel_mask is None else channel_mask.reshape(-1, 1)


def _valid(channel_mask: jax.Array | None) -> jax.Array | None:
    return None if channel_mask is None else channel_mask.any(axis=-1)
