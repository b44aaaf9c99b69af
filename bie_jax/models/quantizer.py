"""Vector quantisation with a codebook learnt by exponential moving averages.

van den Oord et al. 2017, "Neural Discrete Representation Learning", arXiv 1711.00937 (appendix A.1 for the averages).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp


class VectorQuantizer(nn.Module):
    """Replace every vector by its nearest code; the codebook follows the vectors it is given.

    The last axis is quantised, every other axis is a position: `[16, 32, 32, 64]` is read as 16,384 vectors of length
    64. All state lives in the collection `"codebook"` (so no optimiser and no weight decay ever touches it):
    `codebook [K, D]`, `cluster_size [K]` (N_k), `embedding_sum [K, D]` (m_k), `distortion` (moving average of the mean
    ||z_e - e||^2) and `updates` (int32). It changes only with `train=True` and `mutable=["codebook"]`. Under `jax.jit`
    with a batch split over devices every sum below is global, so all devices hold one codebook.

    Differences from the paper: N_k = 1 and m_k = e_k at the start (zeros would throw unused codes far away at once,
    and one code would win everything); the Laplace smoothing is applied in the divisor only, never stored; a code that
    is hardly used is restarted at a vector of the batch.

    Attributes:
        num_codes: K.
        code_dim: D.
        commitment_cost: beta, the weight of ||z_e - sg[e]||^2.
        ema_decay: gamma in [0, 1); 0 takes the batch alone.
        restart_threshold: a code is restarted when its N_k is under this fraction of an even share (sum N_k / K);
            0 never restarts.
        epsilon: Laplace smoothing of the counts.
    """

    num_codes: int
    code_dim: int
    commitment_cost: float = 0.25
    ema_decay: float = 0.99
    restart_threshold: float = 0.05
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, z_e: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Quantise.

        Args:
            z_e: [..., D] float.
            train: whether the codebook learns from these vectors (they are quantised with the codebook from before).

        Returns:
            z_q: [..., D], equal to the nearest codes; its gradient is handed to z_e unchanged (straight through).
            out: `codes` [...] int32 in [0, K); `loss` = beta mean ||z_e - sg[e]||^2 (squared norm over D, mean over
                batch and positions; the codebook term is absent because the codebook is not learnt by gradient);
                `commitment` [...] float32, the same before the mean; `perplexity` in [1, K] and `code_counts` [K] of
                this batch; `squared_distances` [..., K] to every code; `distortion` scalar, what is stored.

        Raises:
            ValueError: if the last axis is not code_dim.
        """
        if z_e.shape[-1] != self.code_dim:
            raise ValueError(f"z_e has {z_e.shape[-1]} numbers per vector, the quantizer's code_dim is {self.code_dim}")

        def initial_codes() -> jax.Array:
            return nn.initializers.normal(1.0)(self.make_rng("params"), (self.num_codes, self.code_dim))

        codebook = self.variable("codebook", "codebook", initial_codes)
        cluster_size = self.variable("codebook", "cluster_size", jnp.ones, (self.num_codes,))
        embedding_sum = self.variable("codebook", "embedding_sum", lambda: jnp.array(codebook.value, copy=True))
        distortion = self.variable("codebook", "distortion", jnp.ones, ())
        updates = self.variable("codebook", "updates", jnp.zeros, (), jnp.int32)

        # float32 whatever the network computes in: counts and distances lose codes in bfloat16.
        vectors = z_e.reshape(-1, self.code_dim).astype(jnp.float32)  # [M, D]
        distances = squared_distances(vectors, codebook.value)  # [M, K]
        codes = jnp.argmin(distances, axis=-1).astype(jnp.int32)  # [M]
        one_hot = jax.nn.one_hot(codes, self.num_codes, dtype=jnp.float32)  # [M, K]
        code_counts = one_hot.sum(axis=0)

        e = jnp.take(codebook.value, codes, axis=0).reshape(z_e.shape).astype(z_e.dtype)
        error = jnp.square((z_e - jax.lax.stop_gradient(e)).astype(jnp.float32)).sum(axis=-1)
        commitment = self.commitment_cost * error
        z_q = z_e + jax.lax.stop_gradient(e - z_e)

        if train and not self.is_initializing():
            learnt = jax.lax.stop_gradient(vectors)
            g = self.ema_decay
            counts = g * cluster_size.value + (1 - g) * code_counts
            sums = g * embedding_sum.value + (1 - g) * (one_hot.T @ learnt)
            counts, sums = self._restart_dead_codes(counts, sums, learnt, updates.value)
            total = counts.sum()
            smoothed = (counts + self.epsilon) / (total + self.num_codes * self.epsilon) * total
            cluster_size.value = counts
            embedding_sum.value = sums
            codebook.value = sums / smoothed[:, None]
            distortion.value = g * distortion.value + (1 - g) * jax.lax.stop_gradient(error.mean())
            updates.value = updates.value + 1

        share = code_counts / code_counts.sum()
        perplexity = jnp.exp(-(share * jnp.log(jnp.where(share > 0, share, 1.0))).sum())
        out = {
            "codes": codes.reshape(z_e.shape[:-1]),
            "loss": commitment.mean(),
            "commitment": commitment,
            "perplexity": perplexity,
            "code_counts": code_counts,
            "squared_distances": distances.reshape(*z_e.shape[:-1], self.num_codes),
            "distortion": distortion.value,
        }
        return z_q, out

    def _restart_dead_codes(
        self, counts: jax.Array, sums: jax.Array, vectors: jax.Array, updates: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Move codes of too small N_k to random vectors of the batch, with an even share as their new N_k.

        The even share gives a restarted code some hundred steps to prove itself; N_k and m_k move with it, because
        e_k = m_k / N_k would otherwise be pulled straight back.
        """
        even_share = counts.sum() / self.num_codes
        dead = counts < self.restart_threshold * even_share
        # Keyed by the number of updates, so a resumed run restarts the same codes at the same vectors.
        key = jax.random.fold_in(jax.random.key(0), updates)
        chosen = vectors[jax.random.randint(key, (self.num_codes,), 0, vectors.shape[0])]  # [K, D]
        counts = jnp.where(dead, even_share, counts)
        sums = jnp.where(dead[:, None], even_share * chosen, sums)
        return counts, sums


def squared_distances(vectors: jax.Array, codebook: jax.Array) -> jax.Array:
    """||z - e||^2 of every vector to every code: [M, D], [K, D] -> [M, K], never below 0.

    The square is written out so that the work is one matrix product; rounding could leave a small negative number.
    """
    products = vectors @ codebook.T
    norms = jnp.square(vectors).sum(axis=-1)[:, None] + jnp.square(codebook).sum(axis=-1)[None, :]
    return jnp.maximum(norms - 2.0 * products, 0.0)
