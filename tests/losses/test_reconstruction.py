import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.losses.reconstruction import mean_squared_error


def test_mean_squared_error_of_a_loop():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 4, 5, 2))
    weight = np.asarray([[1, 1], [0, 1], [0, 0]], np.float32)
    expected = [
        np.mean([(a[0][i] - b[0][i]) ** 2 for i in np.ndindex(4, 5, 2)]),
        np.mean([(a[1][i][1] - b[1][i][1]) ** 2 for i in np.ndindex(4, 5)]),
        0.0,
    ]
    found = mean_squared_error(jnp.asarray(a), jnp.asarray(b), jnp.asarray(weight))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_channel_that_does_not_count_has_no_gradient():
    image, weight = jnp.ones((1, 2, 2, 2)), jnp.asarray([[1.0, 0.0]])
    gradient = jax.grad(lambda x: mean_squared_error(image, x, weight).sum())(jnp.zeros((1, 2, 2, 2)))
    np.testing.assert_allclose(gradient[..., 0], -2 / 4)
    np.testing.assert_array_equal(gradient[..., 1], 0)


def test_perfect_reconstruction_costs_nothing():
    x = jnp.ones((2, 3, 3, 1))
    np.testing.assert_array_equal(mean_squared_error(x, x, jnp.ones((2, 1))), 0)


@pytest.mark.parametrize(("other", "weight"), [((2, 3, 3, 4), (2, 1)), ((2, 3, 3, 1), (2,)), ((2, 3, 3, 1), (1, 1))])
def test_shapes_never_broadcast(other, weight):
    with pytest.raises(ValueError, match="must be equal"):
        mean_squared_error(jnp.zeros((2, 3, 3, 1)), jnp.zeros(other), jnp.ones(weight))
