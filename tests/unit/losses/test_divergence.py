import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from bie_jax.losses.divergence import active_units, free_bits, gaussian_kl

RNG = np.random.default_rng(0)


def test_kl_is_the_integral_of_its_definition():
    mean, logvar = np.asarray([[0.0, 1.5, -0.3], [-2.0, 0.1, 3.0]]), np.asarray([[0.0, -1.0, 2.0], [0.5, -4.0, 0.01]])
    ours = gaussian_kl(jnp.asarray(mean), jnp.asarray(logvar))
    assert ours.shape == (2, 3)
    for i in np.ndindex(2, 3):
        q = norm(mean[i], np.exp(logvar[i] / 2))
        width = 12 * q.std()
        integral, _ = quad(lambda z: q.pdf(z) * (q.logpdf(z) - norm.logpdf(z)), mean[i] - width, mean[i] + width)  # noqa: B023
        np.testing.assert_allclose(ours[i], integral, rtol=1e-4, atol=1e-6)


def test_kl_is_nothing_at_the_prior_and_keeps_its_digits_near_it():
    np.testing.assert_array_equal(gaussian_kl(jnp.zeros(3), jnp.zeros(3)), 0)
    # To second order logvar^2 / 4.
    np.testing.assert_allclose(gaussian_kl(jnp.float32(0), jnp.float32(1e-3)), 0.25e-6, rtol=5e-3)


def test_kl_of_bfloat16_is_computed_in_float32():
    mean, logvar = jnp.asarray([0.5], jnp.bfloat16), jnp.asarray([0.25], jnp.bfloat16)
    ours = gaussian_kl(mean, logvar)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, 0.5 * (0.25 + np.exp(0.25) - 1 - 0.25), rtol=1e-5)


def test_free_bits_are_a_floor_for_each_dimension():
    kl = jnp.asarray([0.1, 0.5, 2.0])
    value, gradient = jax.value_and_grad(free_bits)(kl, 0.4)
    np.testing.assert_allclose(value, 0.4 + 0.5 + 2.0, rtol=1e-6)
    np.testing.assert_array_equal(gradient, [0, 1, 1])
    np.testing.assert_allclose(free_bits(kl, 0.0), 2.6, rtol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_active_units_from_sums_of_batches(offset):
    """Variances on both sides of the threshold, also where the means are far from 0."""
    variances = np.asarray([0.0, 0.005, 0.02, 1.0])
    mean = (offset + RNG.normal(size=(5000, 4)) * np.sqrt(variances)).astype(np.float32)
    total, square = np.zeros((2, 4), np.float32)
    for batch in np.split(mean, 50):
        total, square = total + batch.sum(axis=0), square + np.square(batch).sum(axis=0)
    assert active_units(total, square, np.float32(5000)) == (mean.astype(float).var(axis=0) > 0.01).sum() == 2
    assert active_units(total, square, np.float32(5000), threshold=0.5) == 1


def test_a_collapsed_posterior_has_no_active_unit():
    assert active_units(jnp.full(3, 70.0), jnp.full(3, 49.0), jnp.float32(100)) == 0  # every mean is 0.7
