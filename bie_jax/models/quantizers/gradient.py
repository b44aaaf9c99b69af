"""Vector quantization with codebooks learned by gradient: van den Oord et al. 2017, arXiv 1711.00937, equation 3."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.models.quantizers.kmeans import kmeans
from bie_jax.models.quantizers.lookup import as_vectors, look_up, outputs, straight_through
from bie_jax.models.quantizers.microbatches import accumulate
from bie_jax.models.quantizers.restart import plan_restart


class GradientVectorQuantizer(nn.Module):
    """Replace every vector by its nearest code; the codebook is a parameter.

    A code is its parameter `codebook [G, K, D]` plus `offset [G, K, D]` in the collection `"codebook"`. The offset is 0
    until k-means starts the codebook or a code is restarted: the parameters belong to the optimizer, so what moves a
    code at one go is kept beside them. That collection also has `cluster_size [G, K]`, moving average of how many
    vectors of an update each code gets, `distortion [G]`, that of the mean ||z_e - e||^2, `pending`, `calls` and
    `started` as in `VectorQuantizer`.

    A code that no vector is nearest to gets no gradient and stays where it is, so without k-means many codes would
    never be used; they are restarted at vectors of the batch. The optimizer's averages need no reset: of a code that
    has had no gradient for long they are as good as 0.

    Attributes:
        num_codes: K.
        code_dim: D, numbers per code.
        num_groups: G codebooks, each for its part of a vector.
        commitment_cost: beta, the weight of ||z_e - sg[e]||^2.
        codebook_cost: alpha, the weight of ||sg[z_e] - e||^2; 1 in the paper.
        ema_decay: of the counts and the distortion, in [0, 1).
        restart_threshold: as in `VectorQuantizer`, like the next.
        kmeans_iterations: over 0: start from k-means.
        num_microbatches: training calls that make one update of the averages.
    """

    num_codes: int
    code_dim: int
    num_groups: int = 1
    commitment_cost: float = 0.25
    codebook_cost: float = 1.0
    ema_decay: float = 0.99
    restart_threshold: float = 0.05
    kmeans_iterations: int = 0
    num_microbatches: int = 1

    @property
    def vector_dim(self) -> int:
        """Numbers that are quantized together, G D."""
        return self.num_groups * self.code_dim

    @property
    def num_codebooks(self) -> int:
        """Codes that one vector becomes, G."""
        return self.num_groups

    @nn.compact
    def __call__(
        self, z_e: jax.Array, valid: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Quantize, as `VectorQuantizer`; `commitment` is beta ||z_e - sg[e]||^2 + alpha ||sg[z_e] - e||^2.

        The first term's gradient goes to z_e alone, the second's to the codebook alone; no other output has a gradient
        with respect to the codebook.
        """
        vectors, counted = as_vectors(z_e, valid, self.num_groups, self.code_dim)
        shape = (self.num_groups, self.num_codes, self.code_dim)

        def nothing() -> dict[str, jax.Array]:
            return {"counts": jnp.zeros(shape[:2]), "error": jnp.zeros(shape[:1])}

        parameter = self.param("codebook", nn.initializers.normal(1.0), shape).astype(jnp.float32)
        offset = self.variable("codebook", "offset", jnp.zeros, shape)
        cluster_size = self.variable("codebook", "cluster_size", jnp.ones, shape[:2])
        distortion = self.variable("codebook", "distortion", jnp.ones, shape[:1])
        pending = self.variable("codebook", "pending", nothing)
        calls = self.variable("codebook", "calls", jnp.zeros, (), jnp.int32)
        started = self.variable("codebook", "started", jnp.zeros, (), bool)

        teaching = jax.lax.stop_gradient(vectors)
        learns = train and not self.is_initializing()
        if learns and self.kmeans_iterations:
            starts = ~started.value & (counted.sum() > 0)

            def from_kmeans() -> tuple[jax.Array, jax.Array, jax.Array]:
                centers, counts, distortion = kmeans(
                    teaching, counted, self.num_codes, self.kmeans_iterations, jax.random.key(0)
                )
                # cluster_size counts the vectors of an update; codes without any begin as in a random start.
                counts = jnp.maximum(counts * self.num_microbatches, 1.0)
                return centers - jax.lax.stop_gradient(parameter), counts, distortion

            before = (offset.value, cluster_size.value, distortion.value)
            offset.value, cluster_size.value, distortion.value = jax.lax.cond(starts, from_kmeans, lambda: before)
            started.value = started.value | starts

        found = look_up(vectors, counted, parameter + offset.value)
        to_encoder = jnp.square(vectors - jax.lax.stop_gradient(found.nearest)).sum(axis=-1)  # [M, G]
        to_codebook = jnp.square(teaching - found.nearest).sum(axis=-1)
        cost = self.commitment_cost * to_encoder + self.codebook_cost * to_codebook
        commitment = counted * cost.sum(axis=-1)
        out = outputs(found, z_e.shape[:-1], commitment, distortion.value)

        if learns:
            error = jax.lax.stop_gradient(counted[:, None] * to_encoder).sum(axis=0)
            new = {"counts": found.code_counts, "error": error}
            total, pending.value, due = accumulate(pending.value, new, calls.value, self.num_microbatches)
            follows = due & (total["counts"].sum() > 0)  # without a single vector there is nothing to follow
            g = self.ema_decay
            counts = g * cluster_size.value + (1 - g) * total["counts"]
            updates = calls.value // self.num_microbatches
            anew = plan_restart(counts, teaching, counted, updates, self.restart_threshold)
            moved = anew.vectors - jax.lax.stop_gradient(parameter)
            offset.value = jnp.where((follows & anew.dead)[..., None], moved, offset.value)
            counts = jnp.where(anew.dead, anew.even_share, counts)
            cluster_size.value = jnp.where(follows, counts, cluster_size.value)
            error = g * distortion.value + (1 - g) * total["error"] / jnp.maximum(total["counts"].sum(axis=-1), 1.0)
            distortion.value = jnp.where(follows, error, distortion.value)
            calls.value = calls.value + 1

        z_q = straight_through(vectors, found.nearest)
        return z_q.reshape(z_e.shape).astype(z_e.dtype), out
