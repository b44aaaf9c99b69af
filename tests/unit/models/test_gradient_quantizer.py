from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bie_jax.models.quantizers.gradient import GradientVectorQuantizer
from bie_jax.models.quantizers.vector import VectorQuantizer

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)


@partial(jax.jit, static_argnums=0, static_argnames="train")
def _initialized(quantizer, z, *, train=False):
    state = dict(quantizer.init(jax.random.key(0), z, train=train))
    return state.pop("params"), state


@partial(jax.jit, static_argnums=0)
def _train(quantizer, params, state, z, valid=None):
    """(out, state) after one training call."""
    (_, out), state = quantizer.apply({"params": params, **state}, z, valid, train=True, mutable=["codebook"])
    return out, state


@partial(jax.jit, static_argnums=0)
def _look(quantizer, params, state, z):
    return quantizer.apply({"params": params, **state}, z, train=False)


def test_looks_up_as_the_other_quantizer_does():
    z = RNG.normal(size=(3, 4, 6)).astype(np.float32)
    ours = GradientVectorQuantizer(5, 2, num_groups=3, commitment_cost=0.5, codebook_cost=2.0)
    other = VectorQuantizer(5, 2, num_groups=3, commitment_cost=2.5)
    params, state = _initialized(ours, z)
    z_q, out = _look(ours, params, state, z)
    known = jax.jit(lambda: other.init(jax.random.key(0), z, train=False))()["codebook"]
    expected_z_q, expected = _look(other, {}, {"codebook": known | {"codebook": params["codebook"]}}, z)
    np.testing.assert_array_equal(z_q, expected_z_q)
    assert out.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(out[name], value, rtol=1e-5, err_msg=name)  # alpha + beta = 2.5


def test_each_terms_gradient_goes_where_it_should_and_nowhere_else():
    """Against finite differences in float64 of the terms with sg's arguments held constant."""
    codes = np.asarray([[[0.0, 0.0], [5.0, 5.0], [9.0, 0.0]]])
    z = np.asarray([[0.5, -0.25], [4.0, 6.0], [-1.0, 1.0]])
    chosen, weight = [0, 1, 0], np.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)
    _, state = _initialized(GradientVectorQuantizer(3, 2), z)
    held = codes[0][chosen]

    @jax.jit
    def gradients(z, codes):
        """(to z, to the codebook) of z_q, of each of the two costs, and of the shares."""

        def terms(z, codes):
            def apply(beta, alpha):
                quantizer = GradientVectorQuantizer(3, 2, commitment_cost=beta, codebook_cost=alpha)
                return quantizer.apply({"params": {"codebook": codes}, **state}, z, train=False)

            (z_q, committing), (_, teaching) = apply(0.25, 0.0), apply(0.0, 0.5)
            costs = [out["commitment"].mean() for out in (committing, teaching)]
            return jnp.stack([(weight * z_q).sum(), *costs, committing["shares"][..., 0].sum()])

        return jax.jacrev(terms, argnums=(0, 1))(z, codes)

    to_z, to_codes = gradients(z.astype(np.float32), codes.astype(np.float32))
    np.testing.assert_allclose(to_z[0], _finite_differences(lambda z: (weight * (z + held)).sum(), z), rtol=1e-5)
    expected = _finite_differences(lambda z: 0.25 * np.square(z - held).sum(-1).mean(), z)
    np.testing.assert_allclose(to_z[1], expected, rtol=1e-5)
    np.testing.assert_array_equal(to_z[2], 0)
    assert np.abs(to_z[3]).max() > 0
    expected = _finite_differences(lambda e: 0.5 * np.square(z - e[0][chosen]).sum(-1).mean(), codes)
    np.testing.assert_allclose(to_codes[2], expected, rtol=1e-5, atol=1e-6)
    for term in (0, 1, 3):
        np.testing.assert_array_equal(to_codes[term], 0)


def _finite_differences(function, x, step=1e-6):
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        change = np.zeros_like(x)
        change[i] = step
        gradient[i] = (function(x + change) - function(x - change)) / (2 * step)
    return gradient


@pytest.mark.parametrize(("kmeans_iterations", "least", "most"), [(10, 30, 32), (0, 1, 20)])
def test_kmeans_brings_the_codes_into_use_that_a_random_start_leaves(kmeans_iterations, least, most):
    rng = np.random.default_rng(1)
    centers = rng.normal(size=(32, 8)) * 10
    quantizer = GradientVectorQuantizer(32, 8, kmeans_iterations=kmeans_iterations, restart_threshold=0.0)
    params, state = _initialized(quantizer, jnp.zeros((1, 8)))
    tx = optax.adam(1e-2)

    @jax.jit
    def step(params, state, opt_state, z):
        def loss(params):
            (_, out), changed = quantizer.apply({"params": params, **state}, z, train=True, mutable=["codebook"])
            return out["commitment"].mean(), (changed, out)

        gradients, (state, out) = jax.grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(gradients, opt_state)
        return optax.apply_updates(params, updates), state, opt_state, out

    opt_state = jax.jit(tx.init)(params)
    for _ in range(20):
        z = centers[rng.integers(32, size=512)] + rng.normal(size=(512, 8)) * 0.1
        params, state, opt_state, out = step(params, state, opt_state, z.astype(np.float32))
    assert least <= (np.asarray(out["code_counts"]) > 0).sum() <= most


def test_a_start_from_kmeans_changes_no_parameter_and_happens_once():
    quantizer = GradientVectorQuantizer(4, 3, num_groups=2, kmeans_iterations=30)
    first, second = RNG.normal(size=(2, 50, 6)).astype(np.float32) * 7
    params, state = _initialized(quantizer, first, train=True)
    np.testing.assert_array_equal(state["codebook"]["offset"], 0)
    assert state["codebook"]["calls"] == 0
    out, state = _train(quantizer, params, state, first)
    offset = np.asarray(state["codebook"]["offset"])
    for g in range(2):  # k-means has converged when its codes are the means of their vectors
        part = first[:, 3 * g : 3 * g + 3]
        means = [part[np.asarray(out["codes"][:, g]) == k].mean(axis=0) for k in range(4)]
        np.testing.assert_allclose(np.asarray(params["codebook"])[g] + offset[g], means, atol=1e-4)
    _, state = _train(quantizer, params, state, second)
    np.testing.assert_array_equal(state["codebook"]["offset"], offset)


@pytest.mark.parametrize("parts", [1, 2])
def test_dead_codes_restart_at_valid_vectors_beside_their_parameters(parts):
    """Code 2 of 3 is far from everything; the parameter stays the optimizer's, the offset takes it to the batch."""
    quantizer = GradientVectorQuantizer(3, 2, ema_decay=0.9, restart_threshold=0.05, num_microbatches=parts)
    z = RNG.normal(size=(8, 2)).astype(np.float32)
    z[4] = 300.0  # not valid
    valid = np.arange(8) != 4
    params, state = _initialized(quantizer, z)
    params = {"codebook": np.float32([[[-1, -1], [1, 1], [100, 100]]])}
    state = {"codebook": state["codebook"] | {"cluster_size": np.float32([[4, 4, 0.1]])}}
    for rows in np.split(np.arange(8), parts):
        np.testing.assert_array_equal(state["codebook"]["offset"], 0)
        _, state = _train(quantizer, params, state, z[rows], valid[rows])
    offset = np.asarray(state["codebook"]["offset"])[0]
    np.testing.assert_array_equal(offset[:2], 0)
    last = z[rows][valid[rows]]
    assert np.abs(last - (100 + offset[2])).sum(axis=-1).min() < 1e-3
    nearest = np.square(z[valid][:, None] - params["codebook"][0]).sum(-1).argmin(axis=1)
    counts = 0.9 * np.array([4, 4, 0.1]) + 0.1 * np.bincount(nearest, minlength=3)
    np.testing.assert_allclose(state["codebook"]["cluster_size"], [[*counts[:2], counts.sum() / 3]], rtol=1e-5)


def test_restarts_bring_codes_into_use_without_kmeans():
    """32 clusters, 20 steps: a random start alone leaves more than a third of the codes unused (below 20 of 32)."""
    centers = np.random.default_rng(1).normal(size=(32, 8)) * 10
    for threshold, least, most in ((0.0, 1, 20), (0.05, 24, 32)):
        rng = np.random.default_rng(2)
        quantizer = GradientVectorQuantizer(32, 8, ema_decay=0.5, restart_threshold=threshold)
        params, state = _initialized(quantizer, jnp.zeros((1, 8)))
        for _ in range(20):
            z = centers[rng.integers(32, size=512)] + rng.normal(size=(512, 8)) * 0.1
            out, state = _train(quantizer, params, state, z.astype(np.float32))
        used = (np.asarray(out["code_counts"]) > 0).sum()
        assert least <= used <= most, (threshold, used)


@pytest.mark.parametrize("parts", [1, 2])
def test_distortion_is_a_moving_average_over_whole_batches(parts):
    quantizer = GradientVectorQuantizer(2, 2, ema_decay=0.9, num_microbatches=parts)
    z = RNG.normal(size=(8, 2)).astype(np.float32)
    valid = np.asarray([1, 1, 1, 0, 1, 0, 1, 1], bool)
    params, state = _initialized(quantizer, z)
    for rows in np.split(np.arange(8), parts):
        _, state = _train(quantizer, params, state, z[rows], valid[rows])
    distances = np.square(z[:, None] - np.asarray(params["codebook"])).sum(-1).min(axis=1)
    expected = 0.9 + 0.1 * distances[valid].mean()
    np.testing.assert_allclose(state["codebook"]["distortion"], [expected], rtol=1e-5)


def test_examples_that_are_not_valid_teach_nothing():
    quantizer = GradientVectorQuantizer(4, 3)
    z = RNG.normal(size=(4, 3)).astype(np.float32)
    z[1] = np.inf
    valid = np.asarray([1, 0, 1, 1], bool)
    params, state = _initialized(quantizer, z)

    @partial(jax.jit, static_argnums=2)
    @partial(jax.grad, argnums=(0, 1))
    def gradients(params, z, all_valid):
        z_q, out = quantizer.apply({"params": params, **state}, z, None if all_valid else valid, train=False)
        return z_q.sum() + out["commitment"].sum()

    to_codes, to_z = gradients(params, z, False)
    expected, _ = gradients(params, z[valid], True)
    np.testing.assert_allclose(to_codes["codebook"], expected["codebook"], rtol=1e-5)
    np.testing.assert_array_equal(to_z[1], 0)


def test_without_train_nothing_is_learned():
    quantizer = GradientVectorQuantizer(4, 3, kmeans_iterations=1)
    params, state = _initialized(quantizer, jnp.ones((9, 3)))
    look = jax.jit(lambda z: quantizer.apply({"params": params, **state}, z, train=False, mutable=["codebook"])[1])
    jax.tree.map(np.testing.assert_array_equal, state, look(jnp.ones((9, 3))))
