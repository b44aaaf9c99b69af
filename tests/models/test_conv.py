import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.models.conv import Conv, upsample


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
    "xla": ((9, 12), (3, 3), 1, ((1, 1), (1, 1)), False),
    "strided, asymmetric padding": ((10, 13), (4, 3), 2, ((1, 1), (0, 2)), False),
    "1x1": ((9, 12), (1, 1), 1, ((0, 0), (0, 0)), False),
    "1x1 strided": ((9, 12), (1, 1), 2, ((0, 0), (0, 0)), False),
    "few positions": ((4, 4), (3, 3), 2, ((1, 1), (1, 1)), False),
    "as in a scan": ((9, 12), (3, 3), 2, ((1, 1), (1, 1)), True),
}


@pytest.mark.parametrize("case", CASES)
def test_each_form_is_the_convolution_of_a_loop(case):
    size, kernel_size, strides, padding, in_scan = CASES[case]
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    conv = Conv(5, kernel_size, strides, padding, in_scan=in_scan)
    params = conv.init(jax.random.key(0), x)["params"] | {"bias": jnp.arange(5.0)}
    expected = _conv_by_loops(x, np.asarray(params["kernel"], float), np.arange(5.0), strides, padding)
    np.testing.assert_allclose(conv.apply({"params": params}, x), expected, rtol=1e-4, atol=1e-4)


def test_both_forms_have_one_gradient():
    x = jax.random.normal(jax.random.key(0), (2, 9, 11, 3))
    xla = Conv(4, (3, 3), 2, ((1, 1), (1, 1)))
    product = Conv(4, (3, 3), 2, ((1, 1), (1, 1)), in_scan=True)
    params = xla.init(jax.random.key(1), x)
    loss = [lambda p, x, conv=conv: jnp.sin(conv.apply(p, x)).sum() for conv in (xla, product)]
    for a, b in zip(*(jax.tree.leaves(jax.grad(f, argnums=(0, 1))(params, x)) for f in loss), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_upsample_repeats_every_pixel():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4))
    expected = np.repeat(np.repeat(x, 2, axis=1), 2, axis=2)
    np.testing.assert_array_equal(upsample(jnp.asarray(x)), expected.astype(np.float32))
