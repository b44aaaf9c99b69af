"""The encoder over the ring of an outline's points, and the decoders that make matrices of a latent vector."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.losses.shape import non_negativity, symmetry, triangle_inequality, zero_diagonal
from bie_jax.models.decoders.matrix import MatrixDecoder
from bie_jax.models.decoders.points import PointsDecoder
from bie_jax.models.encoders.ring import RingEncoder, _statistics
from bie_jax.models.layers.ring import chords, ring_steps, turns
from bie_jax.shapes.distance_matrix import normalized_distances

pytestmark = pytest.mark.slow

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


def _initialized(network, x):
    return jax.jit(lambda x: network.init(jax.random.key(0), x, train=False))(x)


@functools.partial(jax.jit, static_argnums=0)
def _apply(network, variables, x):
    return network.apply(variables, x, train=False)


@functools.cache
def _variables(keeps):
    return _initialized(_encoder(keeps), jnp.zeros((1, POINTS, POINTS, 1)))


def _features(keeps, d):
    return np.asarray(_apply(_encoder(keeps), _variables(keeps), d))[:, 0, 0]


def _cross(u, v):
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


def _circle():
    angle = 2 * np.pi * np.arange(POINTS) / POINTS
    return 7 * np.stack([np.sin(angle), np.cos(angle)], axis=-1)[None]


def test_chords_by_loops(outlines):
    """Each chord over that of k steps in a circle whose distances have RMS 1."""
    d = np.asarray(_matrices(outlines))[..., 0]
    steps = [1, 2, 3, 4, 6, 8, 11, 16]
    np.testing.assert_array_equal(ring_steps(POINTS), steps)
    loops = np.zeros((3, POINTS, len(steps)))
    for b in range(3):
        for i in range(POINTS):
            for number, k in enumerate(steps):
                circle = 2 * np.sqrt(0.5) * np.sin(np.pi * k / POINTS)
                loops[b, i, number] = d[b, i, (i + k) % POINTS] / circle - 1
    np.testing.assert_allclose(chords(jnp.asarray(d)), loops, atol=1e-5)


def test_turns_are_those_of_the_points(outlines):
    """From distances alone, the sine of the angle between the ways to and from each point, bumps positive."""
    loops = np.zeros((3, POINTS, 6))
    for b, points in enumerate(outlines):
        area = sum(_cross(points[i - 1], points[i]) for i in range(POINTS))
        for i in range(POINTS):
            for number, k in enumerate([1, 2, 3, 4, 6, 8]):
                coming, going = points[i] - points[i - k], points[(i + k) % POINTS] - points[i]
                sine = _cross(coming, going) / (np.linalg.norm(coming) * np.linalg.norm(going))
                loops[b, i, number] = sine * np.sign(area) - np.sin(2 * np.pi * k / POINTS)
    found = turns(_matrices(outlines)[..., 0])
    np.testing.assert_allclose(found, loops, atol=1e-5)
    np.testing.assert_allclose(turns(_matrices(outlines * [1, -1])[..., 0]), found, atol=1e-5)  # mirrored
    assert loops.min() < -0.3  # there are bays


def test_a_circle_is_nothing():
    d = _matrices(_circle())[..., 0]
    np.testing.assert_allclose(chords(d), 0, atol=1e-5)
    np.testing.assert_allclose(turns(d), 0, atol=1e-5)


def test_turns_of_many_points_on_a_thin_outline_are_not_rounding():
    """256 points, one step apart a hundredth of the whole: single precision beside the points in double precision."""
    angle = 2 * np.pi * np.arange(256) / 256
    ragged = 1 + 0.02 * np.random.default_rng(0).normal(size=256)
    points = (ragged * np.stack([np.sin(angle), 0.05 * np.cos(angle)]))[None].swapaxes(1, 2)
    coming, going = points - np.roll(points, 1, axis=1), np.roll(points, -1, axis=1) - points
    lengths = np.linalg.norm(coming, axis=-1) * np.linalg.norm(going, axis=-1)
    side = np.sign(_cross(points, np.roll(points, -1, axis=1)).sum())
    sine = side * _cross(coming, going) / lengths
    found = turns(_matrices(points)[..., 0])[..., 0]
    np.testing.assert_allclose(found + np.sin(2 * np.pi / 256), sine, atol=2e-3)


def test_what_has_no_area_turns_nowhere():
    """A line there and back, but for its ends, and a single point."""
    way = np.abs(np.arange(POINTS) - POINTS // 2)[None, :, None] * np.array([1.0, 2.0])
    circle = np.sin(2 * np.pi * np.array([1, 2, 3, 4, 6, 8]) / POINTS)
    for points in (way, np.zeros((1, POINTS, 2))):
        found = np.asarray(turns(_matrices(points)[..., 0])) + circle
        np.testing.assert_allclose(found, 0, atol=0.02)


def test_the_side_fades_with_the_area():
    """The loops of a figure of eight turn in opposite senses: which is inside says what area is left, if hardly any."""
    angle = 2 * np.pi * np.arange(POINTS) / POINTS
    points = np.stack([np.sin(2 * angle) / 2 * (1 + 0.003 * np.sin(angle)), np.sin(angle)], axis=-1)
    points /= np.sqrt(2 * points.var(axis=0).sum())
    coming, going = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    sine = _cross(coming, going) / np.linalg.norm(coming, axis=-1) / np.linalg.norm(going, axis=-1)
    enclosed = _cross(points, np.roll(points, -1, axis=0)).sum() / 2
    assert 1e-3 < abs(enclosed) < 4e-3
    found = np.asarray(turns(_matrices(points[None])[..., 0]))[0, :, 0] + np.sin(2 * np.pi / POINTS)
    np.testing.assert_allclose(found, sine * enclosed / 5e-3, atol=1e-3)


def test_between_places_that_nearly_coincide_it_runs_straight(outlines):
    """The way from one to the other is rounding, and so is its direction."""
    close = outlines.copy()
    close[:, 10] = close[:, 9] + 1e-7 * np.random.default_rng(0).normal(size=(3, 2))
    sine = np.asarray(turns(_matrices(close)[..., 0]))[..., 0] + np.sin(2 * np.pi / POINTS)
    np.testing.assert_allclose(sine[:, 9:11], 0, atol=0.05)


def test_statistics_are_mean_greatest_and_deviation_over_the_ring():
    x = np.random.default_rng(0).normal(size=(2, 16, 3)) * (1, 0.05, 3) + 1
    expected = np.concatenate([x.mean(axis=1), x.max(axis=1), x.std(axis=1)], axis=1)
    np.testing.assert_allclose(_statistics(jnp.asarray(x, jnp.float32)), expected, atol=1e-4)


def test_all_re_indexings_have_the_same_features(outlines):
    orders = [np.roll(np.arange(POINTS)[::sign], shift) for shift in range(POINTS) for sign in (1, -1)]
    every = _matrices(np.concatenate([outlines[:1, order] for order in orders]))
    features = _features("nothing", every)
    assert features.shape == (2 * POINTS, 24)
    np.testing.assert_allclose(features, np.broadcast_to(features[:1], features.shape), atol=2e-5)  # of about 2
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
            assert change > 0.05 if differs else change < 2e-5, (keeps, differs, change)


def test_the_parts_of_a_ring_are_its_means_in_order(outlines):
    """With a kept start the first of 16 parts are the first points, and so on: 2 points in each."""
    features = _features("start", _matrices(outlines)).reshape(3, 16, 8)
    rolled = _features("start", _matrices(np.roll(outlines, 2, axis=1))).reshape(3, 16, 8)
    np.testing.assert_allclose(rolled, np.roll(features, 1, axis=1), atol=2e-5)


def test_half_precision_sees_how_an_outline_turns(outlines):
    """Turns are small differences of points: computed in bfloat16 they were noise."""
    d = _matrices(outlines)
    encoder = _encoder("nothing")
    variables = _variables("nothing")
    features = _apply(encoder, variables, d)[:, 0, 0]
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables)
    found = _apply(encoder, half, d.astype(jnp.bfloat16))[:, 0, 0]
    assert found.dtype == jnp.bfloat16
    between = np.sqrt(2 * features.var(axis=0).sum())
    assert np.linalg.norm(found.astype(jnp.float32) - features, axis=1).mean() < 0.25 * between


@pytest.mark.parametrize("keeps", ["nothing", "direction", "start"])
def test_gradients_are_finite_where_nothing_varies(keeps):
    """Of a circle, where all statistics' spreads are 0, and of points that are all in one place."""
    encoder = _encoder(keeps)
    d = jnp.concatenate([_matrices(_circle()), jnp.zeros((1, POINTS, POINTS, 1))])
    gradient = jax.jit(jax.grad(lambda v: jnp.square(encoder.apply(v, d, train=True)).sum()))(_variables(keeps))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))


def test_the_distances_of_decoded_points_have_the_four_properties():
    decoder = PointsDecoder(POINTS)
    z = jax.random.normal(jax.random.key(1), (4, 1, 1, 16))
    d = _apply(decoder, _initialized(decoder, z), z)
    assert d.shape == (4, POINTS, POINTS, 1)
    for term in (zero_diagonal, symmetry, non_negativity, triangle_inequality):
        assert float(term(d[..., 0])) < 1e-9
    np.testing.assert_allclose(jnp.square(d).mean(axis=(1, 2, 3)), 1, rtol=1e-5)
    different = np.abs(np.asarray(d[0] - d[1])).max()
    assert different > 1e-3  # the latent vector has a say


def test_points_begin_as_a_circle():
    decoder = PointsDecoder(POINTS)
    z = jnp.zeros((1, 1, 1, 4))
    np.testing.assert_allclose(chords(_apply(decoder, _initialized(decoder, z), z)[..., 0]), 0, atol=1e-5)


def test_a_decoded_matrix_has_the_size_of_the_outline_and_may_be_any():
    decoder = MatrixDecoder(POINTS)
    z = jax.random.normal(jax.random.key(1), (2, 1, 1, 16))
    d = _apply(decoder, _initialized(decoder, z), z)
    assert d.shape == (2, POINTS, POINTS, 1)
    assert float(symmetry(d[..., 0])) > 1e-4
    assert float(non_negativity(d[..., 0])) > 1e-6


@pytest.mark.parametrize("offset", [1000.0, 10_000.0])
def test_layers_that_stand_far_from_zero_are_normalized_as_those_around_it(outlines, offset):
    """What all channels have in common is subtracted by the norms behind; their variance must not lose it."""

    def shifted(variables):
        def shift(path, leaf):
            names = [part.key for part in path]
            return leaf + offset if names[-1] == "bias" and names[-2] in ("conv1", "conv2") else leaf

        return jax.tree.map_with_path(shift, variables)

    d = _matrices(outlines)
    encoder, decoder = _encoder("nothing"), MatrixDecoder(POINTS, width=8)
    z = jax.random.normal(jax.random.key(1), (3, 1, 1, 6))
    for network, x in ((encoder, d), (decoder, z)):
        variables = _initialized(network, x)
        near, far = _apply(network, variables, x), _apply(network, shifted(variables), x)
        np.testing.assert_allclose(far, near, atol=2e-6 * offset * float(jnp.abs(near).max()))
