import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from bie_jax.losses.reconstruction import masked_patch_error, mean_squared_error


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


def test_the_mean_times_pixels_and_channels_is_twice_a_gaussians_log_likelihood():
    """What a VAE needs: the sum over pixels and channels, here from scipy's density."""
    image, reconstruction = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 2)).astype(np.float32)
    weight = np.asarray([[1, 1], [1, 0], [0, 1]], np.float32)
    ours = 0.5 * 4 * 5 * weight.sum(axis=1) * mean_squared_error(image, reconstruction, weight)
    for b in range(3):
        there = weight[b] > 0
        density = norm.logpdf(image[b][..., there], reconstruction[b][..., there]).sum()
        constant = 20 * there.sum() * np.log(2 * np.pi) / 2
        np.testing.assert_allclose(ours[b], -density - constant, rtol=1e-5)


@pytest.mark.parametrize("channels", [(), (3,)], ids=["joint", "each channel"])
def test_masked_patch_error_of_a_loop(channels):
    rng = np.random.default_rng(0)
    prediction, target = rng.normal(size=(2, 4, *channels, 5, 6))
    token_mask = rng.integers(0, 2, size=prediction.shape[:-1])
    token_mask[1], token_mask[2] = 0, 1
    expected = []
    for b in range(4):
        removed = [i for i in np.ndindex(token_mask.shape[1:]) if token_mask[b][i]]
        errors = [np.mean((prediction[b][i] - target[b][i]) ** 2) for i in removed]
        expected.append(np.mean(errors) if errors else 0.0)
    ours = masked_patch_error(jnp.asarray(prediction), jnp.asarray(target), jnp.asarray(token_mask))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_a_patch_that_was_seen_has_no_gradient():
    token_mask = jnp.asarray([[1, 0, 1], [0, 0, 0]])
    target = jnp.ones((2, 3, 4))
    gradient = jax.grad(lambda x: masked_patch_error(x, target, token_mask).sum())(jnp.zeros((2, 3, 4)))
    np.testing.assert_allclose(gradient[0, ::2], -2 / (2 * 4))
    np.testing.assert_array_equal(gradient[0, 1], 0)
    np.testing.assert_array_equal(gradient[1], 0)


@pytest.mark.parametrize(("target", "token_mask"), [((2, 3, 1), (2, 3)), ((2, 3, 4), (2, 1)), ((2, 3, 4), (2, 3, 4))])
def test_patches_never_broadcast(target, token_mask):
    with pytest.raises(ValueError, match="must be"):
        masked_patch_error(jnp.zeros((2, 3, 4)), jnp.zeros(target), jnp.zeros(token_mask))
