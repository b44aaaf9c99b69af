"""Pre-norm transformer blocks as vision transformers have them, a stack of them as one scanned block.

Dosovitskiy et al. 2020 (arXiv 2010.11929), with LayerScale as an option (DINOv2, Oquab et al. 2023, arXiv 2304.07193).
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from bie_jax.models.layers.broadcast import broadcast
from bie_jax.models.layers.dense import Dense
from bie_jax.models.layers.norm import layer_norm
from bie_jax.models.layers.noted import note_layer

dense = functools.partial(Dense, kernel_init=nn.initializers.xavier_uniform())
# DINOv2 was trained from this value, after Touvron et al. 2021 (arXiv 2103.17239).
_layer_scale_init = nn.initializers.constant(1e-5)


@dataclasses.dataclass(frozen=True)
class ViTSize:
    """Width of a token, number of blocks, attention heads, width of the hidden layer of each block's MLP."""

    width: int
    depth: int
    heads: int
    mlp_width: int


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
        layer_scale: whether both outputs are multiplied by a learned factor per feature before they are added.
        cpu_kernels: see `bie_jax.models.kernels`.
    """

    heads: int
    mlp_width: int
    norm_epsilon: float
    layer_scale: bool
    cpu_kernels: bool

    @nn.compact
    def __call__(self, x: jax.Array, present: jax.Array | None) -> tuple[jax.Array, None]:
        """[B, N, D] and `present` [B, N] bool (see `attention`) -> [B, N, D]."""
        b, n, width = x.shape
        project = functools.partial(dense, cpu_kernels=self.cpu_kernels)
        h = layer_norm(self.norm_epsilon, name="attention_norm")(x)
        h = project((3, self.heads, width // self.heads), name="qkv")(h)  # [B, N, 3, heads, d]
        query, key, value = (part.squeeze(2).swapaxes(1, 2) for part in jnp.split(h, 3, axis=2))
        h = attention(query, key, value, present).swapaxes(1, 2).reshape(b, n, width)
        x = x + self._scaled(project(width, name="attention_out")(h), "attention_scale")
        h = layer_norm(self.norm_epsilon, name="mlp_norm")(x)
        h = gelu(project(self.mlp_width, name="mlp_in")(h))
        x = x + self._scaled(project(width, name="mlp_out")(h), "mlp_scale")
        note_layer(self, "patches", x[:, 1:], None if present is None else present[:, 1:])  # without the class token
        return x, None

    def _scaled(self, h: jax.Array, name: str) -> jax.Array:
        if not self.layer_scale:
            return h
        return h * broadcast(self.param(name, _layer_scale_init, (h.shape[-1],)), h.shape)


def stack_of_blocks(
    size: ViTSize,
    norm_epsilon: float,
    *,
    layer_scale: bool,
    remat: bool,
    cpu_kernels: bool,
    name: str | None = None,
) -> nn.Module:
    """`size.depth` blocks as one scanned layer: their parameters carry a leading axis of that length.

    For the gradient a block keeps what its dense layers made and computes norms, attention and GELU again: they cost
    little, and keeping what they need costs more memory than all the rest.

    Args:
        size: of the blocks.
        norm_epsilon: see `Block`.
        layer_scale: see `Block`.
        remat: whether a block keeps nothing but its input, and matrix products are computed again too.
        cpu_kernels: see `bie_jax.models.kernels`.
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
    )(size.heads, size.mlp_width, norm_epsilon, layer_scale, cpu_kernels, name=name)
