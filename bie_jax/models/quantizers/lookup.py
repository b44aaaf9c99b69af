"""Looking vectors up in codebooks: what the quantizers that have one share.

G codebooks side by side are one array `[G, K, D]`, and vectors are `[M, G, D]`: a vector of G D numbers is cut into G
parts, each looked up in a codebook of its own (product quantization, Jégou et al. 2011, doi 10.1109/TPAMI.2010.57).
Compile time does not depend on G. Everything here is float32 and in full precision, whatever the network computes in:
counts and distances lose codes in bfloat16, and in the TensorFloat-32 that a GPU multiplies by default.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# Width of the soft assignment, in units of the codebook's distortion. A vector between two codes counts for both;
# `experiments/embedding` compares widths with hard assignment.
SOFTNESS = 4.0


class Lookup(NamedTuple):
    """Where vectors fell.

    Attributes:
        codes: [M, G] int32 in [0, K).
        nearest: [M, G, D], the codes themselves; differentiable with respect to the codebook.
        assigned: [M, G, K], 1 at the code of a vector that counts; all 0 for one that does not.
        code_counts: [G, K], how many vectors that count each code got.
        relative_distances: [M, G, K], see there; not differentiable with respect to the codebook.
    """

    codes: jax.Array
    nearest: jax.Array
    assigned: jax.Array
    code_counts: jax.Array
    relative_distances: jax.Array


def as_vectors(z_e: jax.Array, valid: jax.Array | None, num_groups: int, code_dim: int) -> tuple[jax.Array, jax.Array]:
    """Every position of every example as vectors to look up.

    Args:
        z_e: [B, ..., G D] float.
        valid: [B] bool; None: all.
        num_groups: G.
        code_dim: D.

    Returns:
        vectors: [M, G, D] float32, M positions; zeros for examples that are not valid.
        counted: [M] float32, 1 for vectors of valid examples, else 0.

    Raises:
        ValueError: if the last axis is not G D, or `valid` is not [B].
    """
    if z_e.shape[-1] != num_groups * code_dim:
        raise ValueError(
            f"z_e has {z_e.shape[-1]} numbers per vector; num_groups={num_groups} of code_dim={code_dim} take "
            f"{num_groups * code_dim}"
        )
    positions = z_e.shape[:-1]
    vectors = without_invalid(z_e, valid).astype(jnp.float32).reshape(-1, num_groups, code_dim)
    if valid is None:
        return vectors, jnp.ones(math.prod(positions))
    counted = valid.reshape(-1, *(1,) * (len(positions) - 1))
    return vectors, jnp.broadcast_to(counted, positions).reshape(-1).astype(jnp.float32)


def without_invalid(z_e: jax.Array, valid: jax.Array | None) -> jax.Array:
    """[B, ...] with zeros for examples that are not valid ([B] bool; None: all are).

    Selected, not multiplied: what a network makes of an example that is not there may be infinite.

    Raises:
        ValueError: if `valid` is not [B].
    """
    if valid is None:
        return z_e
    if valid.shape != z_e.shape[:1]:
        raise ValueError(f"valid is {valid.shape} for vectors {z_e.shape}: one value per example is expected")
    return jnp.where(valid.reshape(-1, *(1,) * (z_e.ndim - 1)), z_e, 0)


def relative_distances(vectors: jax.Array, codebook: jax.Array) -> jax.Array:
    """What tells codes apart: ||z - e||^2 - ||z||^2, both seen from the codebook's mean.

    The square is written out so that the work is one matrix product. Seen from 0 that loses what it is for: at 1,000
    times the spread of the codes from 0 half of the vectors got a wrong code, as ||z||^2 and 2 z.e are then a million
    times their difference. The mean costs nothing, as distances do not change with it, and ||z||^2 is left out because
    it is the same for all codes, however far from all of them a vector lies. What stays is rounding of the order of
    1e-7 of the squared radius of the codebook about its mean.

    Args:
        vectors: [M, G, D] float32.
        codebook: [G, K, D] float32.

    Returns:
        [M, G, K], below 0 too; least for the nearest code.
    """
    center = codebook.mean(axis=1)  # [G, D]
    codes = codebook - center[:, None]
    products = jnp.einsum("mgd,gkd->mgk", vectors - center[None], codes, precision="highest")
    return jnp.square(codes).sum(axis=-1)[None] - 2.0 * products


def look_up(vectors: jax.Array, counted: jax.Array, codebook: jax.Array) -> Lookup:
    """The nearest code of each vector: [M, G, D], [M], [G, K, D]."""
    distances = relative_distances(vectors, jax.lax.stop_gradient(codebook))
    codes = jnp.argmin(distances, axis=-1).astype(jnp.int32)
    one_hot = jax.nn.one_hot(codes, codebook.shape[1], dtype=jnp.float32)
    # A product with ones and zeros is exact, and its gradient is the same in every run: that of an indexed read adds
    # up in no fixed order on a GPU.
    nearest = jnp.einsum("mgk,gkd->mgd", one_hot, codebook, precision="highest")
    assigned = one_hot * counted[:, None, None]
    return Lookup(codes, nearest, assigned, assigned.sum(axis=0), distances)


def sums_by_code(assigned: jax.Array, vectors: jax.Array) -> jax.Array:
    """Sum of the vectors of each code: [M, G, K], [M, G, D] -> [G, K, D]."""
    return jnp.einsum("mgk,mgd->gkd", assigned, vectors, precision="highest")


def straight_through(vectors: jax.Array, nearest: jax.Array) -> jax.Array:
    """`nearest`, exactly; its gradient goes to `vectors` unchanged and never to the codebook."""
    return jax.lax.stop_gradient(nearest) + (vectors - jax.lax.stop_gradient(vectors))


def soft_shares(distances: jax.Array, distortion: jax.Array) -> jax.Array:
    """Each vector shared out over the codes by softmax(-||z - e_k||^2 / (4 distortion)).

    Args:
        distances: [M, G, K] squared; what is the same for all codes may be left out of them.
        distortion: [G], mean ||z - e||^2 of the vectors to their codes.

    Returns:
        [M, G, K], sums to 1 over K.
    """
    # The floor stands for vectors that are codes: 0 / 0 otherwise.
    return jax.nn.softmax(-distances / (SOFTNESS * jnp.maximum(distortion, 1e-12))[None, :, None], axis=-1)


def perplexity(code_counts: jax.Array) -> jax.Array:
    """exp(entropy) of how often codes occur, mean over codebooks: [G, K] -> scalar in [1, K].

    K if all codes are used alike, 1 if one code takes everything (or nothing was counted).
    """
    share = code_counts / jnp.maximum(code_counts.sum(axis=-1, keepdims=True), 1.0)
    entropy = -(share * jnp.log(jnp.where(share > 0, share, 1.0))).sum(axis=-1)
    return jnp.exp(entropy).mean()


def outputs(
    found: Lookup, positions: tuple[int, ...], commitment: jax.Array, distortion: jax.Array
) -> dict[str, jax.Array]:
    """`out` of a quantizer (see `VectorQuantizer`) of vectors [M, G, D] that lay at `positions`, M in all."""
    return {
        "codes": found.codes.reshape(*positions, -1),
        "commitment": commitment.reshape(positions),
        "perplexity": perplexity(found.code_counts),
        "code_counts": found.code_counts,
        "shares": soft_shares(found.relative_distances, distortion).reshape(*positions, *found.code_counts.shape),
    }


def kmeans(
    vectors: jax.Array, counted: jax.Array, num_codes: int, iterations: int, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Codebooks fitted to one batch.

    Centers are drawn one after the other from the vectors, each with probability proportional to the squared distance
    to the nearest center so far (k-means++, Arthur & Vassilvitskii 2007), then moved to the means of their vectors
    (Lloyd 1982). A center without vectors stays where it is.

    Args:
        vectors: [M, G, D].
        counted: [M], 1 for vectors that count, else 0; at least one must.
        num_codes: K.
        iterations: of Lloyd's, at least 1.
        key: for the draws.

    Returns:
        centers: [G, K, D].
        code_counts: [G, K], how many vectors are nearest to each.
        distortion: [G], mean squared distance to the nearest center.
    """
    _, num_groups, code_dim = vectors.shape
    # Means of thousands of vectors that all lie far out on one side would be rounded like numbers of that size.
    middle = (counted[:, None, None] * vectors).sum(axis=0) / counted.sum()  # [G, D]
    vectors = vectors - middle[None]

    def draw(index: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        centers, nearest = carry
        weight = counted[:, None] * jnp.where(jnp.isinf(nearest), 1.0, nearest)  # [M, G]
        # Where all vectors are centers already, there are fewer different vectors than codes: any will do.
        weight = jnp.where(weight.sum(axis=0, keepdims=True) > 0, weight, counted[:, None])
        row = jax.random.categorical(jax.random.fold_in(key, index), jnp.log(weight), axis=0)  # [G]
        chosen = jnp.take_along_axis(vectors, row[None, :, None], axis=0)[0]  # [G, D]
        nearest = jnp.minimum(nearest, jnp.square(vectors - chosen[None]).sum(axis=-1))
        return centers.at[:, index].set(chosen), nearest

    def move(_: jax.Array, centers: jax.Array) -> jax.Array:
        found = look_up(vectors, counted, centers)
        counts = found.code_counts[..., None]
        return jnp.where(counts > 0, sums_by_code(found.assigned, vectors) / jnp.maximum(counts, 1.0), centers)

    drawn = (jnp.zeros((num_groups, num_codes, code_dim)), jnp.full(vectors.shape[:2], jnp.inf))
    centers, _ = jax.lax.fori_loop(0, num_codes, draw, drawn)
    centers = jax.lax.fori_loop(0, iterations, move, centers)
    found = look_up(vectors, counted, centers)
    error = counted[:, None] * jnp.square(vectors - found.nearest).sum(axis=-1)
    return centers + middle[:, None], found.code_counts, error.sum(axis=0) / counted.sum()


class Restart(NamedTuple):
    """Codes that are hardly used, and where they begin anew.

    Attributes:
        dead: [G, K] bool.
        even_share: [G, 1], what each code's average count were if all had the same.
        vectors: [G, K, D], a random vector of the batch for every code.
    """

    dead: jax.Array
    even_share: jax.Array
    vectors: jax.Array


def plan_restart(
    counts: jax.Array, vectors: jax.Array, counted: jax.Array, updates: jax.Array, threshold: float
) -> Restart:
    """Find codes of too small an average count, and vectors to move them to.

    With an even share as its new count a restarted code has some hundred steps to prove itself.

    Args:
        counts: [G, K], moving averages of how many vectors of an update each code gets.
        vectors: [M, G, D].
        counted: [M], 1 for vectors that count, else 0; without any, nothing is dead.
        updates: int32, updates before this one. It is the key of the draws, so that a resumed run restarts the same
            codes at the same vectors.
        threshold: dead is what is under this fraction of an even share.
    """
    even_share = counts.sum(axis=-1, keepdims=True) / counts.shape[-1]
    key = jax.random.fold_in(jax.random.key(0), updates)
    # Row n of those that count, for a random n.
    drawn = jax.random.randint(key, counts.shape, 0, counted.sum().astype(jnp.int32))
    rows = jnp.searchsorted(jnp.cumsum(counted), drawn.astype(jnp.float32) + 1)
    chosen = jax.vmap(lambda group, row: group[row], in_axes=(1, 0))(vectors, rows)
    return Restart((counts < threshold * even_share) & (counted.sum() > 0), even_share, chosen)


def accumulate(pending: Any, new: Any, calls: jax.Array, num_microbatches: int) -> tuple[Any, Any, jax.Array]:
    """Add up what the calls of one update bring.

    Args:
        pending: tree of sums since the last update.
        new: the same of this call.
        calls: int32, calls before this one.
        num_microbatches: calls per update.

    Returns:
        total: `pending` and `new`.
        pending: what to keep for the next call: `total`, or zeros after an update.
        due: bool, whether this call ends an update.
    """
    due = (calls + 1) % num_microbatches == 0
    total = jax.tree.map(jnp.add, pending, new)
    return total, jax.tree.map(lambda leaf: jnp.where(due, 0, leaf), total), due


def capacity_bits(num_positions: int, num_codebooks: int, num_codes: int) -> float:
    """Bits that the codes of one image can hold: positions x codebooks x log2 K."""
    return num_positions * num_codebooks * math.log2(num_codes)
