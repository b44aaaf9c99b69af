"""The encoder over the ring of an outline's points, and the decoders that make matrices of a latent vector."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.losses.shape import non_negativity, symmetry, triangle_inequality, zero_diagonal
from bie_jax.models.ring import MatrixDecoder, PointsDecoder, RingEncoder, chords
from bie_jax.shapes.distance_matrix import normalized_distances

POINTS = 32


@pytest.fixture(scope="module")
def outlines():
    """[3, 32, 2]: uneven, without any symmetry."""
    rng = np.random.default_rng(0)
    angle = 2 * np.pi * (np.arange(POINTS) + rng.uniform(0, 0.5, (3, POINTS))) / POINTS
    radius = 1 + 0.3 * np.cos(2 * angle + 1) + 0.2 * np.cos(3 * angle)
    return np.stack([radius * np.sin(angle), 1.5 * radius * np.cos(angle)], axis=-1)


def _matrices(outlines):
    return jnp.asarray(normalized_distances(outlines)[0], jnp.float32)[..., None]


def _encoder(keeps):
    return RingEncoder(width=8, depth=3, kernel_size=5, keeps=keeps)


def _features(keeps, d):
    encoder = _encoder(keeps)
    variables = encoder.init(jax.random.key(0), jnp.zeros((1, POINTS, POINTS, 1)), train=False)
    return np.asarray(jax.jit(lambda d: encoder.apply(variables, d, train=False))(d))[:, 0, 0]


def test_chords_by_loops(outlines):
    """Each chord over that of k steps in a circle whose distances have RMS 1; a circle has none that differ from it."""
    d = np.asarray(_matrices(outlines))[..., 0]
    loops = np.zeros((3, POINTS, POINTS // 2))
    for b in range(3):
        for i in range(POINTS):
            for k in range(1, POINTS // 2 + 1):
                circle = 2 * np.sqrt(0.5) * np.sin(np.pi * k / POINTS)
                loops[b, i, k - 1] = d[b, i, (i + k) % POINTS] / circle - 1
    np.testing.assert_allclose(chords(jnp.asarray(d)[..., None]), loops, atol=1e-5)
    angle = 2 * np.pi * np.arange(POINTS) / POINTS
    circle = _matrices(7 * np.stack([np.sin(angle), np.cos(angle)], axis=-1)[None])
    np.testing.assert_allclose(chords(circle), 0, atol=1e-5)


def test_all_re_indexings_have_the_same_features(outlines):
    orders = [np.roll(np.arange(POINTS)[::sign], shift) for shift in range(POINTS) for sign in (1, -1)]
    every = _matrices(np.concatenate([outlines[:1, order] for order in orders]))
    features = _features("nothing", every)
    assert features.shape == (2 * POINTS, 24)
    np.testing.assert_allclose(features, np.broadcast_to(features[:1], features.shape), atol=1e-5)
    assert np.abs(_features("nothing", _matrices(outlines))[1:] - features[0]).max() > 0.1


def test_what_is_kept_tells_apart_what_is_not(outlines):
    """Another start changes features that keep it; the other direction also those that keep the direction."""
    as_it_is = _matrices(outlines)
    started, reversed_ = _matrices(np.roll(outlines, 5, axis=1)), _matrices(outlines[:, ::-1])
    for keeps, of_start, of_direction in (
        ("nothing", False, False),
        ("direction", False, True),
        ("start", True, True),
    ):
        features = _features(keeps, as_it_is)
        for other, differs in ((started, of_start), (reversed_, of_direction)):
            change = np.abs(_features(keeps, other) - features).max()
            assert change > 0.05 if differs else change < 1e-5, (keeps, differs, change)


def test_the_parts_of_a_ring_are_its_means_in_order(outlines):
    """With a kept start the first of 16 parts are the first points, and so on: 2 points in each."""
    features = _features("start", _matrices(outlines)).reshape(3, 16, 8)
    rolled = _features("start", _matrices(np.roll(outlines, 2, axis=1))).reshape(3, 16, 8)
    np.testing.assert_allclose(rolled, np.roll(features, 1, axis=1), atol=1e-5)


@pytest.mark.parametrize("keeps", ["nothing", "direction", "start"])
def test_gradients_are_finite_where_nothing_varies(keeps):
    """Of a circle, where all statistics' spreads are 0, and of points that are all in one place."""
    angle = 2 * np.pi * np.arange(POINTS) / POINTS
    circle = np.stack([np.sin(angle), np.cos(angle)], axis=-1)
    encoder = _encoder(keeps)
    d = jnp.concatenate([_matrices(circle[None]), jnp.zeros((1, POINTS, POINTS, 1))])
    variables = encoder.init(jax.random.key(0), d, train=False)
    gradient = jax.jit(jax.grad(lambda v: jnp.square(encoder.apply(v, d, train=True)).sum()))(variables)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))


def test_the_distances_of_decoded_points_have_the_four_properties():
    decoder = PointsDecoder(POINTS)
    z = jax.random.normal(jax.random.key(1), (4, 1, 1, 16))
    variables = decoder.init(jax.random.key(0), z, train=False)
    d = decoder.apply(variables, z, train=False)
    assert d.shape == (4, POINTS, POINTS, 1)
    for term in (zero_diagonal, symmetry, non_negativity, triangle_inequality):
        assert float(term(d[..., 0])) < 1e-9
    np.testing.assert_allclose(jnp.square(d).mean(axis=(1, 2, 3)), 1, rtol=1e-5)
    different = np.abs(np.asarray(d[0] - d[1])).max()
    assert different > 1e-3  # the latent vector has a say


def test_points_begin_as_a_circle():
    decoder = PointsDecoder(POINTS)
    z = jnp.zeros((1, 1, 1, 4))
    variables = decoder.init(jax.random.key(0), z, train=False)
    np.testing.assert_allclose(chords(decoder.apply(variables, z, train=False)), 0, atol=1e-5)


def test_a_decoded_matrix_has_the_size_of_the_outline_and_may_be_any():
    decoder = MatrixDecoder(POINTS)
    z = jax.random.normal(jax.random.key(1), (2, 1, 1, 16))
    variables = decoder.init(jax.random.key(0), z, train=False)
    d = decoder.apply(variables, z, train=False)
    assert d.shape == (2, POINTS, POINTS, 1)
    assert float(symmetry(d[..., 0])) > 1e-4
    assert float(non_negativity(d[..., 0])) > 1e-6
