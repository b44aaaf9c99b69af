"""Vector quantization with codebooks learned by exponential moving averages.

van den Oord et al. 2017, "Neural Discrete Representation Learning", arXiv 1711.00937 (appendix A.1 for the averages).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.models.quantizers.kmeans import kmeans
from bie_jax.models.quantizers.lookup import as_vectors, look_up, outputs, straight_through, sums_by_code
from bie_jax.models.quantizers.microbatches import accumulate
from bie_jax.models.quantizers.restart import plan_restart


class VectorQuantizer(nn.Module):
    """Replace every vector by its nearest code; the codebook follows the vectors it is given.

    The last axis is quantized, every other axis is a position: `[16, 32, 32, 64]` is read as 16,384 vectors of length
    64. With G groups each vector is cut into G parts with a codebook each. All state lives in the collection
    `"codebook"` (so no optimizer and no weight decay ever touches it): `codebook [G, K, D]`, `cluster_size [G, K]`
    (N_k), `embedding_sum [G, K, D]` (m_k), `distortion [G]` (moving average of the mean ||z_e - e||^2), `pending` (sums
    of the calls since the last update), `calls` int32 and `started` bool. It changes only with `train=True` and
    `mutable=["codebook"]`. Under `jax.jit` with a batch split over devices every sum below is global, so all devices
    hold one codebook.

    Differences from the paper: N_k = 1 and m_k = e_k at the start, or a start from k-means (zeros would throw unused
    codes far away at once, and one code would win everything); the Laplace smoothing is applied in the divisor only,
    never stored; a code that is hardly used is restarted at a vector of the batch.

    Attributes:
        num_codes: K.
        code_dim: D, numbers per code.
        num_groups: G.
        commitment_cost: beta, the weight of ||z_e - sg[e]||^2.
        ema_decay: gamma in [0, 1); 0 takes the batch alone.
        restart_threshold: a code is restarted when its N_k is under this fraction of an even share (sum N_k / K);
            0 never restarts.
        kmeans_iterations: over 0: before the first training call looks anything up, the codebook is fitted to its
            vectors by k-means with so many iterations (SoundStream's start, Zeghidour et al. 2021, arXiv 2107.03312).
        num_microbatches: training calls that make one update. All of them are quantized with the codebook from before,
            and the update is that of one call with all their vectors, but for two things that see only part of them: a
            start from k-means (the first call's) and the vectors that restarts take (the last call's).
        epsilon: Laplace smoothing of the counts.
    """

    num_codes: int
    code_dim: int
    num_groups: int = 1
    commitment_cost: float = 0.25
    ema_decay: float = 0.99
    restart_threshold: float = 0.05
    kmeans_iterations: int = 0
    num_microbatches: int = 1
    epsilon: float = 1e-5

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
        """Quantize.

        Args:
            z_e: [B, ..., G D] float.
            valid: [B] bool, examples that count; None: all. Others are read as zeros, get no gradient, cost nothing and
                teach nothing.
            train: whether the codebook learns from these vectors (they are quantized with the codebook from before).

        Returns:
            z_q: [B, ..., G D], equal to the nearest codes; its gradient is handed to z_e unchanged (straight through).
            out: `codes` [B, ..., G] int32 in [0, K); `commitment` [B, ...] float32, what quantization adds to the loss
                at this position: beta ||z_e - sg[e]||^2, squared norm over all G D numbers (the codebook term is absent
                because the codebook is not learned by gradient); `loss`, its mean over batch and positions;
                `perplexity` in [1, K], mean over codebooks, and `code_counts` [G, K] of this batch; `shares` [B, ...,
                G, K], each part of z_e shared out over its codes by softmax(-||z_e - e_k||^2 / (4 distortion)).

        Raises:
            ValueError: if the last axis is not G D or `valid` is not [B].
        """
        vectors, counted = as_vectors(z_e, valid, self.num_groups, self.code_dim)
        shape = (self.num_groups, self.num_codes, self.code_dim)

        def initial_codes() -> jax.Array:
            return nn.initializers.normal(1.0)(self.make_rng("params"), shape)

        def nothing() -> dict[str, jax.Array]:
            return {"counts": jnp.zeros(shape[:2]), "sums": jnp.zeros(shape), "error": jnp.zeros(shape[:1])}

        codebook = self.variable("codebook", "codebook", initial_codes)
        cluster_size = self.variable("codebook", "cluster_size", jnp.ones, shape[:2])
        embedding_sum = self.variable("codebook", "embedding_sum", lambda: jnp.array(codebook.value, copy=True))
        distortion = self.variable("codebook", "distortion", jnp.ones, shape[:1])
        pending = self.variable("codebook", "pending", nothing)
        calls = self.variable("codebook", "calls", jnp.zeros, (), jnp.int32)
        started = self.variable("codebook", "started", jnp.zeros, (), bool)

        learned = (codebook, cluster_size, embedding_sum, distortion)
        teaching = jax.lax.stop_gradient(vectors)
        learns = train and not self.is_initializing()
        if learns and self.kmeans_iterations:
            starts = ~started.value & (counted.sum() > 0)
            before = tuple(variable.value for variable in learned)
            values = jax.lax.cond(starts, lambda: self._from_kmeans(teaching, counted), lambda: before)
            for variable, value in zip(learned, values, strict=True):
                variable.value = value
            started.value = started.value | starts

        found = look_up(vectors, counted, codebook.value)
        error = counted[:, None] * jnp.square(vectors - jax.lax.stop_gradient(found.nearest)).sum(axis=-1)  # [M, G]
        commitment = self.commitment_cost * error.sum(axis=-1)
        out = outputs(found, z_e.shape[:-1], commitment, distortion.value)

        if learns:
            new = {
                "counts": found.code_counts,
                "sums": sums_by_code(found.assigned, teaching),
                "error": jax.lax.stop_gradient(error).sum(axis=0),
            }
            total, pending.value, due = accumulate(pending.value, new, calls.value, self.num_microbatches)
            before = tuple(variable.value for variable in learned)
            after = self._follow(before, total, teaching, counted, calls.value // self.num_microbatches)
            # Without a single vector there is nothing to follow.
            follows = due & (total["counts"].sum() > 0)
            for variable, value, old in zip(learned, after, before, strict=True):
                variable.value = jnp.where(follows, value, old)
            calls.value = calls.value + 1

        z_q = straight_through(vectors, found.nearest)
        return z_q.reshape(z_e.shape).astype(z_e.dtype), out

    def _from_kmeans(self, vectors: jax.Array, counted: jax.Array) -> tuple[jax.Array, ...]:
        """(codebook, N, m, distortion) of k-means on these vectors."""
        codebook, counts, distortion = kmeans(
            vectors, counted, self.num_codes, self.kmeans_iterations, jax.random.key(0)
        )
        # N_k counts the vectors of an update. Codes without any begin as in a random start: m_k / N_k must be e_k.
        cluster_size = jnp.maximum(counts * self.num_microbatches, 1.0)
        return codebook, cluster_size, cluster_size[..., None] * codebook, distortion

    def _follow(
        self,
        before: tuple[jax.Array, ...],
        total: dict[str, jax.Array],
        vectors: jax.Array,
        counted: jax.Array,
        updates: jax.Array,
    ) -> tuple[jax.Array, ...]:
        """(codebook, N, m, distortion) after the vectors of one update."""
        _, cluster_size, embedding_sum, distortion = before
        g = self.ema_decay
        counts = g * cluster_size + (1 - g) * total["counts"]
        sums = g * embedding_sum + (1 - g) * total["sums"]
        found = plan_restart(counts, vectors, counted, updates, self.restart_threshold)
        # N_k and m_k move with a code, because e_k = m_k / N_k would otherwise be pulled straight back.
        counts = jnp.where(found.dead, found.even_share, counts)
        sums = jnp.where(found.dead[..., None], found.even_share[..., None] * found.vectors, sums)
        size = counts.sum(axis=-1, keepdims=True)
        smoothed = (counts + self.epsilon) / (size + self.num_codes * self.epsilon) * size
        error = total["error"] / jnp.maximum(total["counts"].sum(axis=-1), 1.0)
        return sums / smoothed[..., None], counts, sums, g * distortion + (1 - g) * error
