import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.losses.reconstruction import mean_squared_error


def test_mean_squared_error_of_a_loop():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 4, 5, 2))
    expected = [np.mean([(a[n][i] - b[n][i]) ** 2 for i in np.ndindex(4, 5, 2)]) for n in range(3)]
    np.testing.assert_allclose(mean_squared_error(jnp.asarray(a), jnp.asarray(b)), expected, rtol=1e-5)


def test_perfect_reconstruction_costs_nothing():
    x = jnp.ones((2, 3, 3, 1))
    np.testing.assert_array_equal(mean_squared_error(x, x), 0)


def test_shapes_never_broadcast():
    with pytest.raises(ValueError, match="must be equal"):
        mean_squared_error(jnp.zeros((2, 3, 3, 1)), jnp.zeros((2, 3, 3, 4)))
