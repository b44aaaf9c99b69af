"""The head of methods that compare views: what the loss looks at, and nobody embeds with.

A projection behind the embedding (Chen et al. 2020, "SimCLR", arXiv 2002.05709) keeps in the embedding what the loss
would throw away; with prototypes behind it the head is that of Caron et al. 2021, "DINO" (arXiv 2104.14294).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.models.layers.dense import Dense
from bie_jax.models.layers.transformer import gelu

# Variance is kept whatever the width. The published code draws from N(0, .02^2): the same for its 2048 inputs.
_init = nn.initializers.lecun_normal()


class ProjectionHead(nn.Module):
    """[B, d] -> [B, output_dim], or [B, num_prototypes]: dense layers with GELU between them.

    Attributes:
        width: of the layers between.
        depth: number of dense layers.
        output_dim: of the last one.
        num_prototypes: K; 0: none. With prototypes the last dense layer's output is of unit length, and the head's is
            its product with each of K unit vectors, float32.
        cpu_kernels: see `bie_jax.models.kernels`.

    With prototypes there is also the collection `center`: the moving mean of the teacher's output [K], which the
    objective writes.
    """

    width: int
    depth: int
    output_dim: int
    num_prototypes: int
    cpu_kernels: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Project."""
        for number in range(self.depth - 1):
            x = gelu(Dense(self.width, cpu_kernels=self.cpu_kernels, kernel_init=_init, name=f"hidden{number + 1}")(x))
        x = Dense(self.output_dim, cpu_kernels=self.cpu_kernels, kernel_init=_init, name="output")(x)
        if not self.num_prototypes:
            return x
        self.variable("center", "logits", jnp.zeros, (self.num_prototypes,))
        prototypes = self.param("prototypes", _init, (self.output_dim, self.num_prototypes))
        return jnp.matmul(_unit(x, -1), _unit(prototypes, 0), precision="highest")


class WithHead(nn.Module):
    """A network and a head on its embedding; names of the network's parameters stay as they are.

    Attributes:
        backbone: a network as `bie_jax.models.autoencoder` has them.
        head: [B, latent_dim] -> [B, *].
    """

    backbone: nn.Module
    head: nn.Module

    def setup(self) -> None:
        """The network's parameters lie beside the head's, so that a run of another method can start from them."""
        nn.share_scope(self, self.backbone)

    def __call__(
        self, image: jax.Array, channel_mask: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array | None, dict[str, jax.Array]]:
        """As the network's own call; `out` has `projection`, too."""
        reconstruction, out = self.backbone(image, channel_mask, train=train)
        return reconstruction, out | {"projection": self.head(out["embedding"])}

    def encode(
        self, image: jax.Array, channel_mask: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """As the network's own; the head is no part of it."""
        return self.backbone.encode(image, channel_mask, train=train)

    def look(self, *arrays: Any, train: bool) -> jax.Array:
        """As the network's own."""
        return self.backbone.look(*arrays, train=train)

    def read(self, *arrays: Any, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """As the network's own."""
        return self.backbone.read(*arrays, train=train)

    def decode(self, embedding: jax.Array, height: int, width: int) -> jax.Array:
        """As the network's own."""
        return self.backbone.decode(embedding, height, width)


def _unit(x: jax.Array, axis: int) -> jax.Array:
    """Of unit length along an axis, float32; the floor keeps a vector of zeros, and its gradient, finite."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(axis=axis, keepdims=True), 1e-12))
