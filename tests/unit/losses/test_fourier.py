import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.losses.fourier import fourier_error

RNG = np.random.default_rng(0)


def _magnitude(patch):
    """The definition, one frequency and one pixel at a time."""
    side = len(patch)
    out = np.zeros((side, side))
    for u, v in np.ndindex(side, side):
        total = 0
        for i, j in np.ndindex(side, side):
            total += patch[i, j] * np.exp(-2j * np.pi * (u * i + v * j) / side)
        out[u, v] = abs(total)
    return out


def _by_loops(prediction, target, token_mask):
    expected = []
    for b in range(len(prediction)):
        errors = []
        for i in np.ndindex(token_mask.shape[1:]):
            if token_mask[b][i]:
                pair = (_magnitude(x[b][i].reshape(3, 3)) for x in (prediction, target))
                errors.append(np.abs(next(pair) - next(pair)).mean())
        expected.append(np.mean(errors) if errors else 0.0)
    return np.asarray(expected)


def _batch():
    prediction, target = RNG.normal(size=(2, 3, 2, 4, 9))
    token_mask = RNG.integers(0, 2, size=(3, 2, 4))
    token_mask[1] = 0
    return prediction, target, token_mask


error = jax.jit(fourier_error)


def test_fourier_error_of_a_loop():
    prediction, target, token_mask = _batch()
    ours = error(prediction, target, token_mask)
    np.testing.assert_allclose(ours, _by_loops(prediction, target, token_mask), rtol=1e-4)


def test_the_gradient_is_that_of_the_definition_and_of_removed_patches_alone():
    prediction, target, token_mask = _batch()
    gradient = jax.jit(jax.grad(lambda x: fourier_error(x, target, token_mask).sum()))(prediction.astype(np.float32))
    np.testing.assert_array_equal(np.asarray(gradient)[token_mask == 0], 0)
    step = 1e-6
    at = tuple(np.argwhere(token_mask)[0])
    for pixel in (0, 5):
        change = np.zeros_like(prediction)
        change[(*at, pixel)] = step
        high, low = (_by_loops(prediction + sign * change, target, token_mask).sum() for sign in (1, -1))
        np.testing.assert_allclose(gradient[(*at, pixel)], (high - low) / (2 * step), rtol=1e-3)


def test_a_flat_patch_has_a_finite_gradient():
    """All its magnitudes but one are 0, where the absolute value has no slope."""
    _, target, _ = _batch()
    flat, mask = jnp.ones((3, 2, 4, 9)), jnp.ones((3, 2, 4))
    gradient = jax.jit(jax.grad(lambda x: fourier_error(x, target, mask).sum()))(flat)
    assert np.isfinite(gradient).all()
    assert error(flat, flat, mask).sum() == 0


def test_the_place_within_a_patch_does_not_matter():
    prediction, _, _ = _batch()
    image = prediction.reshape(3, 2, 4, 3, 3)
    moved = np.roll(image, (1, 2), axis=(3, 4)).reshape(3, 2, 4, 9)
    np.testing.assert_allclose(error(prediction, moved, np.ones((3, 2, 4))), 0, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 2, 4, 8), (3, 4, 9)], ids=["no square", "no channel axis"])
def test_patches_must_be_square_images_of_one_channel(shape):
    with pytest.raises(ValueError, match="p x p pixels of one channel"):
        fourier_error(jnp.zeros(shape), jnp.zeros(shape), jnp.zeros(shape[:-1]))
