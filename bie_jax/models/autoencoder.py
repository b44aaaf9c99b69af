"""An encoder, a bottleneck and a decoder, put together."""

import flax.linen as nn
import jax


class VQVAE(nn.Module):
    """Vector-quantised autoencoder (van den Oord et al. 2017, arXiv 1711.00937).

    Attributes:
        encoder: [B, H, W, C] -> [B, h, w, F].
        bottleneck: [B, h, w, F] -> [B, h, w, *] and `out`.
        decoder: [B, h, w, *] -> [B, H, W, C].
    """

    encoder: nn.Module
    bottleneck: nn.Module
    decoder: nn.Module

    def __call__(self, image: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Reconstruct.

        Args:
            image: [B, H, W, C] float, normalised.
            train: whether batch statistics and codebooks learn from this batch.

        Returns:
            reconstruction: [B, H, W, C].
            out: `embedding` [B, latent_dim]; `codes` int32, [B, h, w] or [B, G]; `commitment` [B],
                beta ||z_e - sg[e]||^2, mean over positions (grid) or sum over groups; `perplexity` scalar, mean over
                codebooks; `code_counts` [G, K], uses of each code in this batch; `features` [B, F], the encoder's
                output pooled, before the bottleneck.
        """
        z, out = self.encode(image, train=train)
        return self.decoder(z, train=train), out

    def encode(self, image: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """[B, H, W, C] -> decoder input [B, h, w, *] and `out` as in `__call__`."""
        features = self.encoder(image, train=train)
        z, out = self.bottleneck(features, train=train)
        return z, out | {"features": features.mean(axis=(1, 2))}
