"""The decoder of a masked autoencoder: He et al. 2021 (arXiv 2111.06377)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.models.layers.broadcast import broadcast
from bie_jax.models.layers.masking import Masking
from bie_jax.models.layers.norm import layer_norm
from bie_jax.models.layers.patches import Grid
from bie_jax.models.layers.positions import LearntTable, sincos_positions, token_init
from bie_jax.models.layers.transformer import ViTSize, dense, stack_of_blocks


class MAEDecoder(nn.Module):
    """Puts a learned mask token where tokens were removed, and predicts every patch.

    Attributes:
        size: of its blocks.
        patch_values: numbers per token that are predicted.
        channel_tokens: whether each channel is decoded on its own, with a learned embedding of the channel.
        norm_epsilon: of its layer norms.
        remat: see `stack_of_blocks`.
        cpu_kernels: see `bie_jax.models.kernels`.
    """

    size: ViTSize
    patch_values: int
    channel_tokens: bool
    norm_epsilon: float
    remat: bool
    cpu_kernels: bool

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
        x = dense(width, cpu_kernels=self.cpu_kernels, name="embed")(latent)
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
        blocks = stack_of_blocks(
            self.size,
            self.norm_epsilon,
            layer_scale=False,
            remat=self.remat,
            cpu_kernels=self.cpu_kernels,
            name="blocks",
        )
        x, _ = blocks(x, None)
        x = layer_norm(self.norm_epsilon, name="norm")(x[:, 1:])
        x = dense(self.patch_values, cpu_kernels=self.cpu_kernels, name="pred")(x)
        return x.reshape(batch_size, channels * positions, -1)
