"""Vision transformer: an encoder of images with any number of channels, and a decoder that mirrors it.

Dosovitskiy et al. 2020 (arXiv 2010.11929): patches, a class token, pre-norm blocks. With the options of the published
weights: fixed positions (ViTMAE, He et al. 2021, arXiv 2111.06377) and LayerScale (DINOv2, Oquab et al. 2023, arXiv
2304.07193). One token per patch holds either all channels, or one channel (Bao et al. 2023, arXiv 2309.16108; Kraus et
al. 2024, arXiv 2404.10242).
"""

import dataclasses
import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bie_jax.models.autoencoder import expand, join_channels
from bie_jax.models.layers.broadcast import broadcast, take
from bie_jax.models.layers.dense import Dense

Grid = tuple[int, int]  # (rows, columns) of patches


@dataclasses.dataclass(frozen=True)
class ViTSize:
    """Width of a token, number of blocks, attention heads, width of the hidden layer of each block's MLP."""

    width: int
    depth: int
    heads: int
    mlp_width: int


SIZES = {
    "Ti": ViTSize(192, 12, 3, 768),
    "S": ViTSize(384, 12, 6, 1536),
    "B": ViTSize(768, 12, 12, 3072),
    "L": ViTSize(1024, 24, 16, 4096),
    "H": ViTSize(1280, 32, 16, 5120),
}

dense = functools.partial(Dense, kernel_init=nn.initializers.xavier_uniform())
token_init = nn.initializers.normal(0.02)
# DINOv2 was trained from this value, after Touvron et al. 2021 (arXiv 2103.17239).
_layer_scale_init = nn.initializers.constant(1e-5)


def patchify(image: jax.Array, patch_size: int) -> jax.Array:
    """[B, H, W, C] -> [B, N, p p C]: patches row by row; in a patch row, column, channel, as He et al. order them.

    Raises:
        ValueError: if patches do not cover the image.
    """
    b, c = image.shape[0], image.shape[-1]
    rows, columns = patch_grid(image.shape, patch_size)
    image = image.reshape(b, rows, patch_size, columns, patch_size, c)
    return image.transpose(0, 1, 3, 2, 4, 5).reshape(b, rows * columns, patch_size * patch_size * c)


def unpatchify(patches: jax.Array, grid: Grid, patch_size: int) -> jax.Array:
    """The inverse of `patchify`: [B, N, p p C] -> [B, H, W, C], from N = rows x columns of `grid`."""
    b = patches.shape[0]
    rows, columns = grid
    image = patches.reshape(b, rows, columns, patch_size, patch_size, -1)
    return image.transpose(0, 1, 3, 2, 4, 5).reshape(b, rows * patch_size, columns * patch_size, -1)


def patch_grid(image_shape: tuple[int, ...], patch_size: int) -> Grid:
    """Rows and columns of patches of an image [..., H, W, C].

    Raises:
        ValueError: if patches do not cover the image.
    """
    height, width = image_shape[-3:-1]
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"an image of {height} x {width} pixels cannot be cut into patches of model.vit.patch_size={patch_size}; "
            "its sides must be multiples of it"
        )
    return height // patch_size, width // patch_size


@functools.cache
def sincos_positions(grid: Grid, width: int) -> np.ndarray:
    """Fixed positions [rows, columns, width] float32.

    With w_i = 10000 ** (-i / (width / 4)), i = 0 .. width/4 - 1, the vector at (row y, column x) is
    [sin(x w), cos(x w), sin(y w), cos(y w)]: columns first, as in the code of He et al. (MoCo v3's and big_vision's
    divide i by width/4 - 1 instead).

    Raises:
        ValueError: if `width` is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"positions of width {width}: it must be a multiple of 4, for a sine and a cosine per axis")
    frequencies = 10_000.0 ** -(np.arange(width // 4) / (width // 4))
    y, x = np.meshgrid(*(np.arange(length) for length in grid), indexing="ij")
    angles = [axis[..., None] * frequencies for axis in (x, y)]  # [rows, columns, width / 4]
    waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return np.concatenate(waves, axis=-1).astype(np.float32)


def attention(query: jax.Array, key: jax.Array, value: jax.Array, present: jax.Array | None = None) -> jax.Array:
    """softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017, arXiv 1706.03762, eq. 1), the softmax in float32.

    Args:
        query: [B, heads, N, d].
        key: as `query`.
        value: as `query`.
        present: [B, N] bool, the tokens that are looked at, at least one; None: all. What the others hold has no
            influence on the output of any token but themselves.

    Returns:
        [B, heads, N, d], of `query`'s type.
    """
    query = query * query.shape[-1] ** -0.5
    scores = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=jnp.float32)
    if present is not None:
        scores = jnp.where(present[:, None, None, :], scores, -jnp.inf)
    shares = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqk,bhkd->bhqd", shares, value)


def gelu(x: jax.Array) -> jax.Array:
    """x Phi(x) of the normal distribution (Hendrycks & Gimpel 2016, arXiv 1606.08415), in float32, of `x`'s type.

    Phi by the error function. `jax.nn.gelu` takes the complementary one, which keeps all digits below -5, where the
    value is under 2e-6, for exponentials and divisions that take twice the time on a CPU.
    """
    wide = x.astype(jnp.float32)
    return (0.5 * wide * (1 + lax.erf(wide * 2**-0.5))).astype(x.dtype)


class Block(nn.Module):
    """Pre-norm transformer block, as the body of a scan: attention, then an MLP, each added to its input.

    Attributes:
        heads: of the attention; they divide the width.
        mlp_width: hidden units of the MLP.
        norm_epsilon: added to the variance.
        layer_scale: whether both outputs are multiplied by a learnt factor per feature before they are added.
    """

    heads: int
    mlp_width: int
    norm_epsilon: float
    layer_scale: bool

    @nn.compact
    def __call__(self, x: jax.Array, present: jax.Array | None) -> tuple[jax.Array, None]:
        """[B, N, D] and `present` [B, N] bool (see `attention`) -> [B, N, D]."""
        b, n, width = x.shape
        h = layer_norm(self.norm_epsilon, name="attention_norm")(x)
        h = dense((3, self.heads, width // self.heads), name="qkv")(h)  # [B, N, 3, heads, d]
        query, key, value = (part.squeeze(2).swapaxes(1, 2) for part in jnp.split(h, 3, axis=2))
        h = attention(query, key, value, present).swapaxes(1, 2).reshape(b, n, width)
        x = x + self._scaled(dense(width, name="attention_out")(h), "attention_scale")
        h = layer_norm(self.norm_epsilon, name="mlp_norm")(x)
        h = gelu(dense(self.mlp_width, name="mlp_in")(h))
        return x + self._scaled(dense(width, name="mlp_out")(h), "mlp_scale"), None

    def _scaled(self, h: jax.Array, name: str) -> jax.Array:
        if not self.layer_scale:
            return h
        return h * broadcast(self.param(name, _layer_scale_init, (h.shape[-1],)), h.shape)


def layer_norm(epsilon: float, name: str | None = None) -> nn.LayerNorm:
    """Layer normalization over the features of a token; its mean and variance are float32."""
    return nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, name=name)


def stack_of_blocks(
    size: ViTSize, norm_epsilon: float, *, layer_scale: bool, remat: bool, name: str | None = None
) -> nn.Module:
    """`size.depth` blocks as one scanned layer: their parameters carry a leading axis of that length.

    For the gradient a block keeps what its dense layers made and computes norms, attention and GELU again: they cost
    little, and keeping what they need costs more memory than all the rest.

    Args:
        size: of the blocks.
        norm_epsilon: see `Block`.
        layer_scale: see `Block`.
        remat: whether a block keeps nothing but its input, and matrix products are computed again too.
        name: of the module, where it is made inside a compact method.
    """
    policies = jax.checkpoint_policies
    policy = policies.nothing_saveable if remat else policies.dots_with_no_batch_dims_saveable
    block: Any = nn.remat(Block, prevent_cse=False, policy=policy)
    return nn.scan(
        block,
        variable_axes={"params": 0, "intermediates": 0},
        split_rngs={"params": True},
        in_axes=nn.broadcast,  # pyright: ignore[reportArgumentType]
        length=size.depth,
    )(size.heads, size.mlp_width, norm_epsilon, layer_scale, name=name)


class LearntTable(nn.Module):
    """A learnt array [..., D] of the shape that is asked for first.

    Attributes:
        axes: what its axes but the last count, for the message that refuses another shape.
    """

    axes: str

    @nn.compact
    def __call__(self, shape: tuple[int, ...]) -> jax.Array:
        """The array.

        Raises:
            ValueError: if it has another shape.
        """
        if self.has_variable("params", "embedding"):
            learnt = self.get_variable("params", "embedding").shape
            if learnt != shape:
                raise ValueError(f"this network has learnt {learnt[:-1]} and is given {shape[:-1]} {self.axes}")
        return self.param("embedding", token_init, shape)


class ViTEncoder(nn.Module):
    """[B, H, W, C] -> [B, H/p, W/p, D]: the patches' tokens after the last norm. The class token is not among them.

    Attributes:
        size: one of `SIZES`, or another.
        patch_size: p, pixels.
        positions: "sincos", fixed (see `sincos_positions`), for any image size; "learnt", for the size of the first
            image alone.
        layer_scale: see `Block`.
        channel_tokens: False: a token per patch, which holds all channels. True: a token per patch and channel, through
            one projection that all channels share, with a learnt embedding of the channel added.
        channel_dropout: probability with which a channel of an example is left out in training; at least one that is
            there stays. Needs `channel_tokens`, and draws from "noise".
        norm_epsilon: of every layer norm: 1e-6 in DINOv2 and in the code of He et al., 1e-12 in `transformers`' ViT
            and ViTMAE.
        remat: see `stack_of_blocks`.
    """

    size: ViTSize
    patch_size: int
    positions: Literal["sincos", "learnt"]
    layer_scale: bool = False
    channel_tokens: bool = False
    channel_dropout: float = 0.0
    norm_epsilon: float = 1e-6
    remat: bool = False

    def setup(self) -> None:
        """Make the parts; which arrays there are depends on the attributes."""
        width = self.size.width
        self.patch_embed = dense(width, axes=3)
        self.class_token = self.param("class_token", token_init, (width,))
        if self.positions == "learnt":
            self.class_pos_embed = self.param("class_pos_embed", token_init, (width,))
            self.pos_embed = LearntTable("rows and columns of patches; positions='sincos' takes any size")
        if self.channel_tokens:
            self.channel_embed = LearntTable("channels")
        self.blocks = stack_of_blocks(self.size, self.norm_epsilon, layer_scale=self.layer_scale, remat=self.remat)
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
            ValueError: if patches do not cover the image, or learnt positions or channels are of others.
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


class ViTDecoder(nn.Module):
    """[B, h, w, *] -> [B, p h, p w, num_channels]: blocks over the map's positions, linear output.

    Any map size; positions are `sincos_positions`. Width, depth and heads are by default those of He et al.'s decoder.
    """

    num_channels: int
    patch_size: int
    width: int = 512
    depth: int = 8
    heads: int = 16
    norm_epsilon: float = 1e-6
    remat: bool = False

    @nn.compact
    def __call__(self, z: jax.Array, valid: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Decode a grid of latents; there are no batch statistics, so `valid` and `train` change nothing."""
        del valid, train
        b, rows, columns, _ = z.shape
        positions = jnp.asarray(sincos_positions((rows, columns), self.width), z.dtype)
        x = (dense(self.width, name="embed")(z) + positions[None]).reshape(b, rows * columns, self.width)
        size = ViTSize(self.width, self.depth, self.heads, 4 * self.width)
        x, _ = stack_of_blocks(size, self.norm_epsilon, layer_scale=False, remat=self.remat, name="blocks")(x, None)
        x = layer_norm(self.norm_epsilon, name="norm")(x)
        x = dense(self.patch_size**2 * self.num_channels, name="pred")(x)
        return unpatchify(x, (rows, columns), self.patch_size)


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
