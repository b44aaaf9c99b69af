import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.models.quantizers import lookup

RNG = np.random.default_rng(0)


def test_relative_distances_are_squared_distances_but_for_a_number_of_each_vector():
    vectors, codebook = RNG.normal(size=(20, 2, 3)), RNG.normal(size=(2, 7, 3))
    expected = [[[sum((v - e) ** 2) for e in codebook[g]] for g, v in enumerate(parts)] for parts in vectors]
    ours = np.asarray(jax.jit(lookup.relative_distances)(vectors, codebook))
    differences = np.asarray(expected) - ours
    np.testing.assert_allclose(differences, np.broadcast_to(differences[..., :1], differences.shape), atol=1e-4)


# Vectors and codes on one side of 0, and codes that the vectors have left, or have not reached.
@pytest.mark.parametrize("code_offset", [0, 30, 1000, 10_000])
@pytest.mark.parametrize("vector_offset", [0, 30, 1000, 10_000])
def test_the_nearest_code_is_that_of_a_loop_in_float64_wherever_the_codebook_lies(look_up, vector_offset, code_offset):
    vectors = (RNG.normal(size=(300, 2, 4)) + vector_offset).astype(np.float32)
    codebook = (RNG.normal(size=(2, 32, 4)) + code_offset).astype(np.float32)
    found = look_up(vectors, np.ones(300, np.float32), codebook)
    exact = np.asarray(
        [
            [[np.square(v - e).sum() for e in codebook[g].astype(float)] for g, v in enumerate(parts)]
            for parts in vectors
        ]
    )
    # Where two codes are as near to the precision of the vectors themselves, either is right.
    excess = np.take_along_axis(exact, np.asarray(found.codes)[..., None], axis=-1)[..., 0] - exact.min(axis=-1)
    apart = np.sqrt(exact.min(axis=-1))
    assert (excess <= 1e-5 * np.maximum(apart, 1)).all()
    assert (np.asarray(found.codes) == exact.argmin(axis=-1)).mean() > 0.995
    shares = lookup.soft_shares(found.relative_distances, np.full(2, 0.5, np.float32))
    weights = np.exp(-(exact - exact.min(axis=-1, keepdims=True)) / (4 * 0.5))
    np.testing.assert_allclose(
        shares, weights / weights.sum(axis=-1, keepdims=True), atol=5e-2 if apart.max() > 99 else 1e-4
    )


def test_examples_that_are_not_valid_are_zeros_and_do_not_count():
    z_e = jnp.asarray([[[1.0, 2, 3, 4]] * 2, [[jnp.nan, 6, jnp.inf, 8]] * 2])  # [B, positions, G D]
    vectors, counted = lookup.as_vectors(z_e, jnp.asarray([True, False]), 2, 2)
    np.testing.assert_array_equal(vectors, [[[1, 2], [3, 4]]] * 2 + [[[0, 0], [0, 0]]] * 2)
    np.testing.assert_array_equal(counted, [1, 1, 0, 0])
    everything, counted = lookup.as_vectors(z_e, None, 2, 2)
    np.testing.assert_array_equal(everything.reshape(z_e.shape), z_e)
    np.testing.assert_array_equal(counted, [1, 1, 1, 1])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"5 numbers per vector; num_groups=2 of code_dim=3 take 6"):
        lookup.as_vectors(jnp.zeros((4, 5)), None, 2, 3)
    with pytest.raises(ValueError, match=r"valid is \(3,\) for vectors \(4, 6\)"):
        lookup.as_vectors(jnp.zeros((4, 6)), jnp.ones(3, bool), 2, 3)


def test_perplexity_is_k_for_even_use_and_one_on_collapse():
    perplexity = jax.jit(lookup.perplexity)
    for counts, expected in (
        ([[5.0, 5, 5, 5], [2, 2, 2, 2]], 4),
        ([[0, 9, 0, 0], [7, 0, 0, 0]], 1),
        ([[0, 0, 0, 0], [0, 0, 0, 0]], 1),  # nothing was counted
        ([[4, 4, 0, 0], [1, 1, 1, 1]], (2 + 4) / 2),
    ):
        np.testing.assert_allclose(perplexity(np.asarray(counts, np.float32)), expected, rtol=1e-6)


def test_shares_are_a_softmax_in_units_of_each_groups_distortion():
    distances, distortion = RNG.uniform(size=(5, 2, 3)), np.asarray([0.1, 2.0])
    soft_shares = jax.jit(lookup.soft_shares)
    ours = soft_shares(distances, distortion)
    for m, g in np.ndindex(5, 2):
        weights = [np.exp(-d / (4 * distortion[g])) for d in distances[m, g]]
        np.testing.assert_allclose(ours[m, g], np.asarray(weights) / sum(weights), rtol=1e-5)
    distances[0, 0] = [0.0, 1.0, 1.0]
    np.testing.assert_array_equal(soft_shares(distances, np.zeros(2))[0, 0], [1, 0, 0])


def test_straight_through_is_the_code_to_the_last_bit():
    vectors, nearest = jnp.asarray([[0.1]]), jnp.asarray([[1e-5]])
    np.testing.assert_array_equal(lookup.straight_through(vectors, nearest), nearest)


def test_capacity():
    assert lookup.capacity_bits(7 * 7, 4, 512) == 49 * 4 * 9


@pytest.fixture(scope="module")
def look_up():
    return jax.jit(lookup.look_up)
