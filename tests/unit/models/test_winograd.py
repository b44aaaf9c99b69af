"""Winograd's algorithm beside sums over taps in float64, and where `convolve` takes it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bie_jax.models.kernels import convolution, winograd
from bie_jax.training.flops import count_flops
from bie_jax.training.sharding import data_layout

SAME = ((1, 1), (1, 1))
convolve = functools.partial(convolution.convolve, cpu_kernels=True)
CASES = {
    "even": ((6, 8), SAME),
    "odd": ((7, 9), SAME),
    "no padding": ((7, 8), ((0, 0), (0, 0))),
    "one sided": ((5, 6), ((0, 2), (3, 1))),
    "one position": ((3, 3), ((0, 0), (0, 0))),
}


def _windows(x, padding):
    """What each tap sees, float64: [3, 3, B, H', W', C]."""
    x = np.pad(np.asarray(x, np.float64), ((0, 0), *padding, (0, 0)))
    height, width = x.shape[1] - 2, x.shape[2] - 2
    return np.stack([[x[:, i : i + height, j : j + width] for j in range(3)] for i in range(3)])


def _draw(size, padding, batch=4, c_in=3, c_out=5, scale=1.0):
    rng = np.random.default_rng(0)
    shapes = (batch, *size, c_in), (3, 3, c_in, c_out), (batch, *(n + sum(p) - 2 for n, p in zip(size, padding)), c_out)
    return [rng.normal(scale=scale, size=shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("bytes_at_once", [1, 3000, 2**23])  # one image at a time, some, all
@pytest.mark.parametrize("case", CASES)
def test_it_is_the_sum_over_taps_and_so_is_the_gradient(case, bytes_at_once, monkeypatch):
    monkeypatch.setattr(winograd, "_BYTES_AT_ONCE", bytes_at_once)
    size, padding = CASES[case]
    x, kernel, dy = _draw(size, padding)
    seen = _windows(x, padding)
    expected = np.einsum("ijbyxc,ijcd->byxd", seen, kernel)
    np.testing.assert_allclose(winograd.convolve(x, kernel, padding), expected, rtol=1e-4, atol=1e-5)
    gradient = np.einsum("ijbyxc,byxd->ijcd", seen, dy)
    np.testing.assert_allclose(winograd.kernel_gradient(x, dy, padding), gradient, rtol=1e-4, atol=2e-5)


def test_parts_are_equal_and_as_large_as_the_cache_allows(monkeypatch):
    """One image of 4 x 6 pixels and 5 channels grows to 16 places of 2 x 3 tiles: 16 * 6 * 5 * 4 bytes."""
    x = np.zeros((12, 4, 6, 5), np.float32)
    grown = 16 * 6 * 5 * 4
    for images, expected in ((0.5, 1), (1, 1), (3.9, 3), (5, 4), (11, 6), (12, 12)):
        monkeypatch.setattr(winograd, "_BYTES_AT_ONCE", int(images * grown))
        assert winograd._in_parts(x, (2, 3)).shape == (expected, 12 // expected, 4, 6, 5)


def test_float32_keeps_its_digits():
    """Against float64, over 128 channels: no more than twice as far off as the library's direct convolution."""
    x, kernel, _ = _draw((16, 16), SAME, c_in=128, c_out=128)
    expected = np.einsum("ijbyxc,ijcd->byxd", _windows(x, SAME), kernel)
    direct = lax.conv_general_dilated(x, kernel, (1, 1), SAME, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    error, direct_error = (
        np.sqrt(np.square(np.asarray(y) - expected).mean()) for y in (winograd.convolve(x, kernel, SAME), direct)
    )
    assert error < 2 * direct_error < 1e-5 * expected.std()


def _is_taken(x, kernel, strides=1):
    return "platform_index" in str(jax.make_jaxpr(lambda x, kernel: convolve(x, kernel, strides, SAME))(x, kernel))


def test_it_is_taken_of_many_tiles_and_channels_in_float32():
    x, kernel, _ = _draw((12, 12), SAME, c_in=32, c_out=40)
    assert _is_taken(x, kernel)
    assert not _is_taken(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    assert not _is_taken(x, kernel, strides=2)
    assert not _is_taken(x[..., :31], kernel[:, :, :31])
    assert not _is_taken(x, kernel[:2])
    assert not _is_taken(x[:1], kernel)  # 36 tiles, 40 channels


def test_it_counts_as_the_convolution_that_it_is():
    """So that FLOPs, and the share of a device's peak, say the same of a network on every device."""
    x, kernel, dy = _draw((12, 12), SAME, c_in=32, c_out=40)
    taps = 9 * 32 * 40 * 4 * 12 * 12
    assert _is_taken(x, kernel)
    assert count_flops(lambda x, kernel: convolve(x, kernel, 1, SAME), x, kernel) == 2 * taps
    step = jax.grad(lambda kernel, x: (convolve(x, kernel, 1, SAME) * dy).sum(), argnums=(0, 1))
    assert count_flops(step, kernel, x) == 2 * 2 * taps


@pytest.mark.eight_devices
def test_a_batch_stays_split_over_devices(monkeypatch):
    """Also in parts: every device computes its own images, and nothing but the kernel's gradient is exchanged."""
    monkeypatch.setattr(winograd, "_BYTES_AT_ONCE", 8 * 16 * 36 * 32 * 4)
    x, kernel, dy = _draw((12, 12), SAME, batch=16, c_in=32, c_out=32, scale=0.1)
    step = jax.jit(lambda x, kernel, dy: jax.vjp(lambda x, kernel: convolve(x, kernel, 1, SAME), x, kernel)[1](dy))
    expected = step(x, kernel, dy)
    split = data_layout().batch
    given = jax.device_put(x, split), kernel, jax.device_put(dy, split)
    compiled = step.lower(*given).compile()
    assert "all-reduce" in compiled.as_text()
    assert "all-gather" not in compiled.as_text()
    dx, dkernel = step(*given)
    assert dx.sharding.is_equivalent_to(split, dx.ndim)
    np.testing.assert_allclose(dx, expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dkernel, expected[1], rtol=1e-4, atol=1e-4)
