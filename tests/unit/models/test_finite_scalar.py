from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.models.quantizers.finite_scalar import FiniteScalarQuantizer

LEVELS = (8, 5, 3, 2)
QUANTIZER = FiniteScalarQuantizer(LEVELS)
RNG = np.random.default_rng(0)


@jax.jit
def _look(z, valid=None):
    return QUANTIZER.apply({}, z, valid, train=False)


def _bound(z, count):
    """Appendix A.1 of the paper, one number at a time."""
    half = (count - 1) * (1 - 1e-3) / 2
    offset = 0.0 if count % 2 else 0.5
    return np.tanh(z + np.tan(offset / half)) * half - offset


def test_numbers_are_bounded_and_rounded_and_codes_are_their_digits():
    z = RNG.normal(size=(3, 5, 4)).astype(np.float32) * 2
    z_q, out = _look(z)
    counts = np.zeros(240)
    for at in np.ndindex(3, 5):
        code, place = 0, 1
        for i, count in enumerate(LEVELS):
            level = round(_bound(float(z[at][i]), count))
            assert -(count // 2) <= level <= (count - 1) // 2
            np.testing.assert_allclose(z_q[at][i], level / (count // 2), rtol=1e-6)
            code += (level + count // 2) * place
            place *= count
        assert out["codes"][at] == code
        counts[code] += 1
    np.testing.assert_array_equal(out["code_counts"], [counts])
    np.testing.assert_array_equal(out["commitment"], np.zeros((3, 5)))
    share = counts / 15
    np.testing.assert_allclose(out["perplexity"], np.exp(-(share * np.log(share.clip(1e-9))).sum()), rtol=1e-5)
    assert (QUANTIZER.num_codes, QUANTIZER.vector_dim, QUANTIZER.num_codebooks) == (240, 4, 1)


def test_codes_and_values_are_one_to_one_and_every_code_can_be_reached():
    codes = np.arange(240)[:, None]
    values = np.asarray(jax.jit(QUANTIZER.values)(codes))
    assert len(np.unique(values, axis=0)) == 240
    # A vector whose bounded numbers are the levels themselves, drawn in to where tanh can reach.
    z = np.empty_like(values)
    for i, count in enumerate(LEVELS):
        half, offset = (count - 1) * (1 - 1e-3) / 2, 0.0 if count % 2 else 0.5
        reachable = ((values[:, i] * (count // 2) + offset) / half).clip(-0.99, 0.99)
        z[:, i] = np.arctanh(reachable) - np.tan(offset / half)
    z_q, out = _look(z)
    np.testing.assert_array_equal(out["codes"], codes)
    np.testing.assert_allclose(z_q, values, atol=1e-6)
    np.testing.assert_allclose(out["perplexity"], 240, rtol=1e-4)


def test_huge_numbers_stay_within_the_levels():
    for sign in (-1, 1):
        z_q, out = _look(np.full((1, 4), sign * 1e6, np.float32))
        assert out["codes"] == (0 if sign < 0 else 239)
        assert (np.abs(z_q) <= 1).all()


def test_the_gradient_is_that_of_the_bound():
    """Rounding hands it on: finite differences, in float64, of the bounded numbers."""
    z, weight = RNG.normal(size=(6, 4)), RNG.normal(size=(6, 4))
    ours = jax.jit(jax.grad(lambda z: (weight.astype(np.float32) * QUANTIZER.apply({}, z, train=False)[0]).sum()))
    step = 1e-6
    slope = np.stack([(_bound(z + step, n) - _bound(z - step, n))[:, i] / (2 * step) for i, n in enumerate(LEVELS)], -1)
    expected = weight * slope / np.asarray([n // 2 for n in LEVELS])
    np.testing.assert_allclose(ours(z.astype(np.float32)), expected, rtol=1e-4, atol=1e-6)


def test_shares_are_a_softmax_over_all_combinations():
    z = RNG.normal(size=(5, 4)).astype(np.float32)
    _, out = _look(z)
    half_width = np.asarray([n // 2 for n in LEVELS])
    levels = np.asarray(QUANTIZER.values(jnp.arange(240)[:, None])) * half_width
    for b in range(5):
        bounded = [_bound(float(z[b, i]), n) for i, n in enumerate(LEVELS)]
        distances = np.square(bounded - levels).sum(axis=1)
        weights = np.exp(-distances / (4 * len(LEVELS) / 12))
        np.testing.assert_allclose(out["shares"][b, 0], weights / weights.sum(), rtol=1e-4)


def test_examples_that_are_not_valid_count_nowhere():
    z = RNG.normal(size=(4, 3, 4)).astype(np.float32)
    valid = np.asarray([1, 0, 1, 0], bool)
    bad = np.where(valid[:, None, None], z, np.nan).astype(np.float32)
    _, out = _look(bad, valid)
    counted = np.bincount(np.asarray(_look(z)[1]["codes"])[valid].ravel(), minlength=240)
    np.testing.assert_array_equal(out["code_counts"], [counted])
    gradient = jax.jit(jax.grad(lambda z: QUANTIZER.apply({}, z, valid, train=False)[0].sum()))(bad)
    np.testing.assert_array_equal(gradient[~valid], 0)
    assert (np.asarray(gradient)[valid] != 0).all()


def test_there_is_nothing_to_learn():
    z = jax.ShapeDtypeStruct((2, 4), jnp.bfloat16)
    assert jax.eval_shape(partial(QUANTIZER.init, train=True), jax.random.key(0), z) == {}
    assert jax.eval_shape(partial(QUANTIZER.apply, {}, train=True), z)[0].dtype == jnp.bfloat16


def test_wrong_width_is_refused():
    with pytest.raises(ValueError, match=r"3 numbers per vector.*take 4"):
        QUANTIZER.apply({}, jnp.zeros((1, 3)), train=False)
