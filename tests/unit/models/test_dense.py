"""The dense layer beside Flax's, and sums over repeats beside sums in float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.models.encoders.ring import _RingConv
from bie_jax.models.kernels.product import cpu_product, plain_product
from bie_jax.models.layers.broadcast import broadcast, take
from bie_jax.models.layers.dense import Dense

X = np.random.default_rng(0).normal(size=(2, 5, 3, 4, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("ours", "flax"),
    [
        (Dense(7), nn.Dense(7)),
        (Dense(7, use_bias=False), nn.Dense(7, use_bias=False)),
        (Dense((3, 2, 4)), nn.DenseGeneral((3, 2, 4))),
        (Dense(8, axes=3), nn.DenseGeneral(8, axis=(-3, -2, -1))),
    ],
)
def test_it_is_flax_s_layer(ours, flax):
    key = jax.random.key(0)
    variables = flax.init(key, X)
    jax.tree.map(np.testing.assert_array_equal, ours.init(key, X), variables)
    variables = jax.tree.map(lambda leaf: leaf + 0.1, variables)  # a bias that is not 0
    np.testing.assert_allclose(ours.apply(variables, X), flax.apply(variables, X), rtol=1e-5, atol=1e-6)


def test_a_convolution_along_the_ring_is_flax_s():
    key, x = jax.random.key(0), X.reshape(2, -1, 6)
    flax = nn.Conv(7, (5,), padding="CIRCULAR")
    variables = flax.init(key, x)
    jax.tree.map(np.testing.assert_array_equal, _RingConv(7, 5).init(key, x), variables)
    variables = jax.tree.map(lambda leaf: leaf + 0.1, variables)
    np.testing.assert_allclose(_RingConv(7, 5).apply(variables, x), flax.apply(variables, x), rtol=1e-5, atol=1e-6)


def test_the_gradient_of_repeats_keeps_its_digits_in_bfloat16():
    """4,096 summands of mean .02: summed in bfloat16 they stop at 68 of 82."""
    given = jnp.asarray(np.random.default_rng(0).normal(0.02, 0.1, size=(4096, 2)), jnp.bfloat16)
    expected = np.asarray(given).astype(np.float64).sum(0)
    bias = jnp.zeros(2, jnp.bfloat16)
    repeated, spread = jax.vjp(lambda bias: broadcast(bias, given.shape), bias)
    assert repeated.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(spread(given)[0], np.float64), expected, rtol=5e-3)
    rows = jnp.zeros(4096, jnp.int32)
    taken, put_back = jax.vjp(lambda table: take(table, rows), bias[None])
    assert taken.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(put_back(given)[0][0], np.float64), expected, rtol=5e-3)


def test_float64_stays_float64():
    with jax.enable_x64(True):
        assert broadcast(jnp.ones(2, jnp.float64) / 3, (4, 2))[0, 0] == 1 / 3
        assert take(jnp.ones((1, 2), jnp.float64) / 3, jnp.zeros(3, jnp.int32))[0, 0] == 1 / 3


@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 4, 6)])
def test_a_product_has_the_gradients_of_a_sum_over_rows(shape):
    rng = np.random.default_rng(0)
    x, kernel, dy = rng.normal(size=shape), rng.normal(size=(6, 7)), rng.normal(size=(*shape[:-1], 7))
    with jax.enable_x64(True):
        y, back = jax.vjp(cpu_product, jnp.asarray(x), jnp.asarray(kernel))
        dx, dkernel = back(jnp.asarray(dy))
    np.testing.assert_allclose(y, np.einsum("...k,km->...m", x, kernel), rtol=1e-12)
    np.testing.assert_allclose(dx, np.einsum("...m,km->...k", dy, kernel), rtol=1e-12, atol=1e-12)
    expected = sum(np.outer(row, back) for row, back in zip(x.reshape(-1, 6), dy.reshape(-1, 7), strict=True))
    np.testing.assert_allclose(dkernel, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", [cpu_product, plain_product])
def test_a_product_into_several_axes_is_that_into_one(form):
    rng = np.random.default_rng(0)
    x, kernel, dy = (rng.normal(size=shape) for shape in ((2, 5, 6), (6, 3, 2, 4), (2, 5, 3, 2, 4)))
    with jax.enable_x64(True):
        y, back = jax.vjp(form, jnp.asarray(x), jnp.asarray(kernel))
        dx, dkernel = back(jnp.asarray(dy))
    flat, flat_dy = kernel.reshape(6, 24), dy.reshape(2, 5, 24)
    np.testing.assert_allclose(y, (x @ flat).reshape(y.shape), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dx, flat_dy @ flat.T, rtol=1e-12, atol=1e-12)
    expected = np.einsum("bnk,bnm->km", x, flat_dy).reshape(kernel.shape)
    np.testing.assert_allclose(dkernel, expected, rtol=1e-12, atol=1e-12)
