"""Looking vectors up in codebooks, and what that gives.

G codebooks side by side are one array `[G, K, D]`, and vectors are `[M, G, D]`: a vector of G D numbers is cut into G
parts, each looked up in a codebook of its own (product quantization, Jégou et al. 2011, doi 10.1109/TPAMI.2010.57).
Compile time does not depend on G. Everything here is float32 and in full precision, whatever the network computes in:
counts and distances lose codes in bfloat16, and in the TensorFloat-32 that a GPU multiplies by default.
"""

import math
from typing import NamedTuple

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
        "loss": commitment.mean(),
        "perplexity": perplexity(found.code_counts),
        "code_counts": found.code_counts,
        "shares": soft_shares(found.relative_distances, distortion).reshape(*positions, *found.code_counts.shape),
    }


def capacity_bits(num_positions: int, num_codebooks: int, num_codes: int) -> float:
    """Bits that the codes of one image can hold: positions x codebooks x log2 K."""
    return num_positions * num_codebooks * math.log2(num_codes)
