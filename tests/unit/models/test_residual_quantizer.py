from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.models.quantizers.gradient import GradientVectorQuantizer
from bie_jax.models.quantizers.residual import ResidualQuantizer
from bie_jax.models.quantizers.vector import VectorQuantizer

pytestmark = pytest.mark.slow

QUANTIZERS = {
    "averages": ResidualQuantizer(VectorQuantizer(5, 3, num_groups=2), 3),
    "gradient": ResidualQuantizer(GradientVectorQuantizer(5, 3, num_groups=2, codebook_cost=0.5), 3),
}
WEIGHT = {"averages": 0.25, "gradient": 0.75}  # alpha + beta
Z = np.random.default_rng(0).normal(size=(4, 2, 6)).astype(np.float32) * 2


@partial(jax.jit, static_argnums=0)
def _initialized(quantizer, z):
    return quantizer.init(jax.random.key(0), z, train=False)


@partial(jax.jit, static_argnums=0)
def _train(quantizer, variables, z):
    (_, out), state = quantizer.apply(variables, z, train=True, mutable=["codebook"])
    return out, variables | state


def _codebooks(variables):
    """[L, G, K, D]."""
    held = variables["params"] if "params" in variables else variables["codebook"]
    return np.asarray(held["quantizer"]["codebook"])


def _by_loops(codebooks, z):
    """Codes [L G], sum of codes [D] and sum over levels of the squared residuals of one vector, float64."""
    residual, codes, cost = z.astype(float), [], 0.0
    for level in codebooks:
        nearest = []
        for group, part in zip(level, np.split(residual, len(level)), strict=True):
            codes.append(np.square(group - part).sum(axis=1).argmin())
            nearest.append(group[codes[-1]])
        residual = residual - np.concatenate(nearest)
        cost += np.square(residual).sum()
    return codes, z - residual, cost


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_each_level_quantizes_what_the_one_before_left_over(kind):
    quantizer = QUANTIZERS[kind]
    variables = _initialized(quantizer, Z)
    codebooks = _codebooks(variables)
    assert codebooks.shape == (3, 2, 5, 3)
    assert (codebooks[0] != codebooks[1]).all()
    z_q, out = jax.jit(partial(quantizer.apply, train=False))(variables, Z)
    counts = np.zeros((6, 5))
    for at in np.ndindex(4, 2):
        codes, total, cost = _by_loops(codebooks, Z[at])
        np.testing.assert_array_equal(out["codes"][at], codes)
        np.testing.assert_allclose(z_q[at], total, atol=1e-5)
        np.testing.assert_allclose(out["commitment"][at], WEIGHT[kind] * cost, rtol=1e-4)
        counts[range(6), codes] += 1
    np.testing.assert_array_equal(out["code_counts"], counts)
    share = counts / counts.sum(axis=1, keepdims=True)
    entropy = -(share * np.log(share.clip(1e-9))).sum(axis=1)
    np.testing.assert_allclose(out["perplexity"], np.exp(entropy).mean(), rtol=1e-5)
    assert out["shares"].shape == (4, 2, 6, 5)
    np.testing.assert_array_equal(out["shares"].argmax(axis=-1), out["codes"])
    assert (quantizer.num_codebooks, quantizer.num_codes, quantizer.vector_dim) == (6, 5, 6)


def test_gradients_reach_z_e_once_and_each_codebook_from_its_own_level():
    """Against finite differences in float64 with what sg holds as constants."""
    quantizer = QUANTIZERS["gradient"]
    variables = _initialized(quantizer, Z)
    codebooks = _codebooks(variables).astype(float)
    state = {"codebook": variables["codebook"]}
    z, weight = Z[:1, 0], np.arange(1.0, 7.0, dtype=np.float32)[None]

    @jax.jit
    @partial(jax.jacrev, argnums=(0, 1))
    def gradients(z, codebook):
        z_q, out = quantizer.apply({"params": {"quantizer": {"codebook": codebook}}, **state}, z, train=False)
        return jnp.stack([(weight * z_q).sum(), out["commitment"].sum()])

    to_z, to_codes = gradients(z, codebooks.astype(np.float32))
    np.testing.assert_allclose(to_z[0], weight, rtol=1e-6)
    np.testing.assert_array_equal(to_codes[0], 0)

    codes, _, _ = _by_loops(codebooks, z[0])
    chosen = np.reshape(codes, (3, 2))

    def terms(z, moving, held):
        """beta sum_l ||z - sg[e_1 + .. + e_l]||^2 and alpha sum_l ||sg[residual] - e_l||^2."""
        committing = teaching = 0.0
        total = np.zeros(6)
        for level in range(3):
            residual = Z[0, 0] - total
            nearest, learning = (
                np.concatenate([book[level, g, chosen[level, g]] for g in range(2)]) for book in (held, moving)
            )
            teaching += 0.5 * np.square(residual - learning).sum()
            total = total + nearest
            committing += 0.25 * np.square(z[0] - total).sum()
        return committing, teaching

    wanted = _finite_differences(lambda z: terms(z, codebooks, codebooks)[0], z.astype(float))
    np.testing.assert_allclose(to_z[1], wanted, rtol=1e-4, atol=1e-5)
    wanted = _finite_differences(lambda e: terms(z, e, codebooks)[1], codebooks)
    np.testing.assert_allclose(to_codes[1], wanted, rtol=1e-4, atol=1e-5)


def _finite_differences(function, x, step=1e-6):
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        change = np.zeros_like(x)
        change[i] = step
        gradient[i] = (function(x + change) - function(x - change)) / (2 * step)
    return gradient


def test_levels_start_from_kmeans_on_residuals_and_each_leaves_less():
    quantizer = ResidualQuantizer(VectorQuantizer(8, 4, kmeans_iterations=5, ema_decay=0.9), 4)
    z = np.random.default_rng(1).normal(size=(256, 4)).astype(np.float32) * 10
    out, variables = _train(quantizer, _initialized(quantizer, z), z)
    assert variables["codebook"]["quantizer"]["started"].all()
    assert (np.asarray(out["code_counts"]) > 0).sum() >= 30
    distortion = np.asarray(variables["codebook"]["quantizer"]["distortion"])[:, 0]
    assert (distortion[1:] < 0.7 * distortion[:-1]).all()


def test_examples_that_are_not_valid_teach_no_level():
    quantizer = QUANTIZERS["averages"]
    variables = _initialized(quantizer, Z)
    valid = np.asarray([1, 0, 1, 1], bool)
    bad, other = (np.where(valid[:, None, None], Z, value).astype(np.float32) for value in (np.inf, 5.0))
    train = jax.jit(partial(quantizer.apply, train=True, mutable=["codebook"]))
    (z_q, out), state = train(variables, bad, valid)
    _, same = train(variables, other, valid)
    jax.tree.map(np.testing.assert_array_equal, state, same)
    np.testing.assert_array_equal(out["code_counts"].sum(axis=1), [6] * 6)  # 3 examples of 2 vectors
    assert np.isfinite(z_q).all()
    np.testing.assert_array_equal(out["commitment"][1], 0)


def test_the_program_does_not_grow_with_the_levels():
    sizes = {}
    for levels in (2, 32):
        quantizer = ResidualQuantizer(VectorQuantizer(4, 3), levels)
        variables = jax.eval_shape(partial(quantizer.init, train=False), jax.random.key(0), Z[..., :3])
        train = jax.jit(partial(quantizer.apply, train=True, mutable=["codebook"]))
        sizes[levels] = len(train.lower(variables, Z[..., :3]).as_text())
    assert sizes[32] < 1.1 * sizes[2]
