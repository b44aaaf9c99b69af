import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.models.layers.conv import Conv
from bie_jax.models.layers.resize import max_pool, upsample

pytestmark = pytest.mark.slow


def _conv_by_loops(x, kernel, bias, strides, padding):
    x = np.pad(x, ((0, 0), *padding, (0, 0)))
    kh, kw, _, features = kernel.shape
    height, width = ((x.shape[i + 1] - k) // strides + 1 for i, k in enumerate((kh, kw)))
    y = np.zeros((len(x), height, width, features))
    for b, i, j in np.ndindex(len(x), height, width):
        window = x[b, i * strides : i * strides + kh, j * strides : j * strides + kw]
        y[b, i, j] = np.tensordot(window, kernel, 3) + bias
    return y


CASES = {
    "3x3": ((9, 12), (3, 3), 1, ((1, 1), (1, 1))),
    "strided": ((9, 12), (3, 3), 2, ((1, 1), (1, 1))),
    "strided, asymmetric padding": ((10, 13), (4, 3), 2, ((1, 1), (0, 2))),
    "stem": ((14, 17), (7, 7), 2, ((3, 3), (3, 3))),
    "halving": ((10, 12), (4, 4), 2, ((1, 1), (1, 1))),
    "1x1": ((9, 12), (1, 1), 1, ((0, 0), (0, 0))),
    "1x1 strided": ((9, 12), (1, 1), 2, ((0, 0), (0, 0))),
    "few positions": ((4, 4), (3, 3), 2, ((1, 1), (1, 1))),
}


@pytest.mark.parametrize("case", CASES)
def test_each_form_is_the_convolution_of_a_loop(case):
    size, kernel_size, strides, padding = CASES[case]
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    conv = Conv(5, kernel_size, strides, padding)
    params = conv.init(jax.random.key(0), x)["params"] | {"bias": jnp.arange(5.0)}
    expected = _conv_by_loops(x, np.asarray(params["kernel"], float), np.arange(5.0), strides, padding)
    np.testing.assert_allclose(conv.apply({"params": params}, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("batch", "is_product"), [(2, True), (3, False)])
def test_few_positions_beside_many_output_channels_are_one_product(batch, is_product):
    """36 positions of each map; at most twice as many in the batch as there are output channels."""
    conv, x = Conv(40, (3, 3), padding=((1, 1), (1, 1))), jnp.zeros((batch, 6, 6, 3))
    variables = conv.init(jax.random.key(0), x)
    assert ("conv_general_dilated" not in str(jax.make_jaxpr(conv.apply)(variables, x))) == is_product


@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
def test_a_kernel_starts_as_the_library_s(mode):
    """To the bit, although it is drawn with fewer axes."""
    init = nn.initializers.variance_scaling(2.0, mode, "truncated_normal")
    x, key = jnp.zeros((1, 6, 8, 5)), jax.random.key(3)
    ours = Conv(7, (3, 4), kernel_init=init).init(key, x)
    jax.tree.map(np.testing.assert_array_equal, ours, nn.Conv(7, (3, 4), kernel_init=init).init(key, x))


@pytest.mark.parametrize("size", [(8, 12), (7, 9)])
def test_max_pool_is_the_greatest_of_each_window(size):
    x = np.abs(np.random.default_rng(0).normal(size=(2, *size, 3))).astype(np.float32)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = ((n - 1) // 2 + 1 for n in size)
    expected = np.zeros((2, height, width, 3), np.float32)
    for i, j in np.ndindex(height, width):
        expected[:, i, j] = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max(axis=(1, 2))
    np.testing.assert_array_equal(max_pool(jnp.asarray(x)), expected)
    # Without ties the gradient goes to the greatest of each window, and nowhere else.
    gradient = jax.grad(lambda x: (max_pool(x) * jnp.arange(1.0, 1 + expected.size).reshape(expected.shape)).sum())
    wanted = np.zeros(x.shape)
    for number, (b, i, j, c) in enumerate(np.ndindex(expected.shape), 1):
        hits = np.argwhere(x[b, :, :, c] == expected[b, i, j, c])
        wanted[b, hits[0][0], hits[0][1], c] += number
    np.testing.assert_allclose(gradient(jnp.asarray(x)), wanted)


def test_upsample_repeats_every_pixel():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4))
    expected = np.repeat(np.repeat(x, 2, axis=1), 2, axis=2)
    np.testing.assert_array_equal(upsample(jnp.asarray(x)), expected.astype(np.float32))


@pytest.mark.parametrize("strides", [1, 2])
def test_circular_padding_has_no_border(strides):
    """Rolling the image rolls the result; with zeros beyond the border it does not."""
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    for mode in ("circular", "zeros"):
        conv = Conv(4, (3, 3), strides, padding=((1, 1), (1, 1)), padding_mode=mode)
        variables = conv.init(jax.random.key(1), x)
        rolled = conv.apply(variables, jnp.roll(x, (2, 4), (1, 2)))
        expected = jnp.roll(conv.apply(variables, x), (2 // strides, 4 // strides), (1, 2))
        assert bool(jnp.allclose(rolled, expected, atol=1e-5)) == (mode == "circular")


def test_circular_pooling_is_that_of_the_tiled_image():
    x = jax.random.uniform(jax.random.key(0), (2, 6, 8, 3))
    tiled = max_pool(jnp.tile(x, (1, 3, 3, 1)))[:, 3:6, 4:8]
    np.testing.assert_array_equal(max_pool(x, "circular"), tiled)
    assert np.abs(max_pool(x) - tiled).max() > 0
