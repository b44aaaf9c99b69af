from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from bie_jax.losses.contrastive import Origin, channel_pull, info_nce, info_nce_replicates

RNG = np.random.default_rng(0)
PRESENT = np.asarray([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], bool)  # the last two have no positives
TREATMENT = np.asarray([0, 0, 0, 1, 1, 2, -1, -1])
PLATE = np.asarray([0, 1, 1, 0, 0, 1, 0, 1])  # treatment 1 has no other plate
TEMPERATURE = 0.3


def _origin(image, well=None, plate=None, treatment=None):
    image = np.asarray(image)
    return Origin(image, *(image if numbers is None else np.asarray(numbers) for numbers in (well, plate, treatment)))


APART = _origin(range(4))  # four images of four wells
REPLICATES = _origin(range(8), plate=PLATE, treatment=TREATMENT)
# Twelve: 0, 3 and 9 are of one well; 5 is 2 again, 11 is 0 again.
IMAGES = np.asarray([0, 1, 2, 3, 4, 2, 6, 7, 8, 9, 10, 0])
WELLS = np.asarray([0, 1, 2, 0, 4, 2, 4, 7, 8, 0, 8, 0])

channels = jax.jit(partial(info_nce, temperature=TEMPERATURE))
replicates = jax.jit(partial(info_nce_replicates, temperature=TEMPERATURE))
pull = jax.jit(channel_pull)


def _mean_over_anchors(vectors, positives, negatives):
    """Khosla et al., equation 2, one pair at a time: names of vectors, and what each is compared with."""

    def similarity(a, b):
        a, b = vectors[a], vectors[b]
        return np.exp(a @ b / np.linalg.norm(a) / np.linalg.norm(b) / TEMPERATURE)

    losses = []
    for anchor, others in positives.items():
        total = sum(similarity(anchor, other) for other in (*others, *negatives[anchor]))
        if others and negatives[anchor]:
            losses.append(-np.mean([np.log(similarity(anchor, other) / total) for other in others]))
    return np.mean(losses) if losses else 0.0


def _firsts(image, there):
    """Of each image the first place where it is there."""
    return {min(i for i in range(len(image)) if there[i] and image[i] == number) for number in set(image[there])}


def _channels_by_loops(embeddings, present, origin=APART):
    first = _firsts(origin.image, present.any(axis=1))
    there = [(b, c) for b, c in np.ndindex(present.shape) if present[b, c] and b in first]
    positives = {a: [o for o in there if o != a and o[0] == a[0]] for a in there}
    negatives = {a: [o for o in there if origin.well[o[0]] != origin.well[a[0]]] for a in there}
    return _mean_over_anchors(embeddings, positives, negatives)


def _replicates_by_loops(embedding, origin=REPLICATES):
    image, well, plate, treatment = origin.image, origin.well, origin.plate, origin.treatment
    treated = sorted(_firsts(image, treatment >= 0))
    others = {a: [o for o in treated if well[o] != well[a]] for a in treated}
    positives = {a: [o for o in others[a] if treatment[o] == treatment[a] and plate[o] != plate[a]] for a in treated}
    negatives = {a: [o for o in others[a] if treatment[o] != treatment[a]] for a in treated}
    return _mean_over_anchors(embedding, positives, negatives)


def test_channels_of_an_image_against_a_loop():
    embeddings = RNG.normal(size=(4, 3, 5))
    for present in (PRESENT, np.ones((4, 3), bool)):
        np.testing.assert_allclose(
            channels(embeddings, present, APART), _channels_by_loops(embeddings, present), rtol=1e-5
        )


def test_replicates_on_other_plates_against_a_loop():
    embedding = RNG.normal(size=(8, 5))
    expected = _replicates_by_loops(embedding)
    np.testing.assert_allclose(replicates(embedding, REPLICATES), expected, rtol=1e-5)
    assert expected > 0


def test_gradients_are_those_of_the_definition_in_float64():
    embeddings, embedding = RNG.normal(size=(4, 3, 5)), RNG.normal(size=(8, 5))
    copies, twelve = _origin(IMAGES, WELLS, WELLS % 3, WELLS % 2), RNG.normal(size=(12, 2, 5))
    everything = np.ones((12, 2), bool)
    cases = [
        (embeddings, lambda x: info_nce(x, PRESENT, APART, TEMPERATURE), lambda x: _channels_by_loops(x, PRESENT)),
        (
            twelve,
            lambda x: info_nce(x, everything, copies, TEMPERATURE),
            lambda x: _channels_by_loops(x, everything, copies),
        ),
        (
            embedding,
            lambda x: info_nce_replicates(x, REPLICATES, TEMPERATURE),
            lambda x: _replicates_by_loops(x),
        ),
        (embeddings, lambda x: channel_pull(x, PRESENT), lambda x: _pull_by_loops(x, PRESENT)),
    ]
    for x, ours, loop in cases:
        gradient = jax.jit(jax.grad(ours))(x.astype(np.float32))
        for i in RNG.permutation(list(np.ndindex(x.shape)))[:12]:
            change = np.zeros_like(x)
            change[tuple(i)] = 1e-6
            expected = (loop(x + change) - loop(x - change)) / 2e-6
            np.testing.assert_allclose(gradient[tuple(i)], expected, rtol=1e-3, atol=1e-6)


def _pull_by_loops(embeddings, present):
    """The mean over images of the mean squared distance between two of its channels."""
    by_image = []
    for image, there in zip(embeddings, present, strict=True):
        rows = image[there]
        pairs = [np.square(a - b).sum() for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]
        if pairs:
            by_image.append(np.mean(pairs))
    return np.mean(by_image) if by_image else 0.0


def test_the_pull_is_the_mean_squared_distance_between_two_channels():
    embeddings = RNG.normal(size=(4, 3, 5))
    np.testing.assert_allclose(pull(embeddings, PRESENT), _pull_by_loops(embeddings, PRESENT), rtol=1e-5)
    everything = np.ones((4, 3), bool)
    scatter = np.square(embeddings - embeddings.mean(axis=1, keepdims=True)).sum()
    np.testing.assert_allclose(pull(embeddings, everything), 2 / (4 * 2) * scatter, rtol=1e-5)  # SPEC 5.4


def test_only_the_pull_is_content_with_a_constant():
    constant = np.ones((4, 3, 5))
    everything = np.ones((4, 3), bool)
    np.testing.assert_allclose(pull(constant, everything), 0, atol=1e-10)
    np.testing.assert_allclose(
        channels(constant, everything, APART), np.log(11), rtol=1e-5
    )  # one of 11 others, at random
    images = np.repeat(np.eye(4, 5)[:, None], 3, axis=1)
    assert channels(images, everything, APART) < channels(constant, everything, APART)


@pytest.mark.parametrize("missing", [np.nan, np.inf, 100.0])
def test_what_is_not_there_changes_nothing(missing):
    embeddings, embedding = (RNG.normal(size=size).astype(np.float32) for size in ((4, 3, 5), (8, 5)))
    other = np.where(PRESENT[..., None], embeddings, missing).astype(np.float32)
    for function in (info_nce, channel_pull):
        extra = (PRESENT, APART, TEMPERATURE) if function is info_nce else (PRESENT,)
        value_and_grad = jax.jit(jax.value_and_grad(lambda x: function(x, *extra)))  # noqa: B023
        value, gradient = value_and_grad(embeddings)
        other_value, other_gradient = value_and_grad(other)
        assert value == other_value
        np.testing.assert_array_equal(gradient, other_gradient)
        np.testing.assert_array_equal(np.asarray(gradient)[~PRESENT], 0)
    other = np.where(TREATMENT[:, None] >= 0, embedding, missing).astype(np.float32)
    assert replicates(embedding, REPLICATES) == replicates(other, REPLICATES)


def test_nothing_to_compare_costs_nothing_and_has_no_gradient():
    embeddings, embedding = np.zeros((4, 3, 5), np.float32), np.zeros((8, 5), np.float32)
    cases = [
        (embeddings, lambda x: info_nce(x, np.eye(4, 3, dtype=bool), APART, TEMPERATURE)),
        (embeddings, lambda x: info_nce(x, np.zeros((4, 3), bool), APART, TEMPERATURE)),
        (embeddings, lambda x: info_nce(x, np.ones((4, 3), bool), _origin([0, 0, 0, 0]), TEMPERATURE)),
        (embeddings, lambda x: info_nce(x, np.ones((4, 3), bool), _origin(range(4), [7] * 4), TEMPERATURE)),
        (embeddings, lambda x: channel_pull(x, np.eye(4, 3, dtype=bool))),
        (
            embedding,
            lambda x: info_nce_replicates(x, _origin(range(8), plate=[0] * 8, treatment=TREATMENT), TEMPERATURE),
        ),
        (embedding, lambda x: info_nce_replicates(x, _origin(range(8), plate=PLATE, treatment=[-1] * 8), TEMPERATURE)),
        (embedding, lambda x: info_nce_replicates(x, _origin(range(8), plate=PLATE, treatment=[3] * 8), TEMPERATURE)),
    ]
    for x, function in cases:
        value, gradient = jax.jit(jax.value_and_grad(function))(x)
        assert value == 0
        np.testing.assert_array_equal(gradient, 0)


def test_a_vector_without_direction_has_a_finite_gradient():
    gradient = jax.jit(jax.grad(lambda x: info_nce(x, np.ones((4, 3), bool), APART, TEMPERATURE)))(np.zeros((4, 3, 5)))
    assert np.isfinite(gradient).all()


def test_neither_order_nor_length_matters():
    embeddings, order = RNG.normal(size=(4, 3, 5)), RNG.permutation(4)
    expected = channels(embeddings, PRESENT, APART)
    np.testing.assert_allclose(channels(embeddings[order], PRESENT[order], APART), expected, rtol=1e-5)
    lengths = RNG.uniform(0.1, 10, size=(4, 3, 1))
    np.testing.assert_allclose(channels(embeddings * lengths, PRESENT, APART), expected, rtol=1e-5)


@pytest.mark.parametrize("form", ["channels", "replicates"])
def test_a_batch_with_copies_costs_what_it_costs_without_them(form):
    """Batches cross the ends of epochs: of 70 images 14 were twice in a batch of 64, each a negative of itself."""
    rows = RNG.normal(size=(12, 2, 5)).astype(np.float32)  # copies are other views of the image: they differ
    once = np.unique(IMAGES, return_index=True)[1]
    assert len(once) == 10

    def value_and_gradient(rows, origin):
        if form == "channels":
            return jax.value_and_grad(info_nce)(rows, np.ones((len(rows), 2), bool), origin, TEMPERATURE)
        return jax.value_and_grad(lambda x: info_nce_replicates(x[:, 0], origin, TEMPERATURE))(rows)

    all_origins = (IMAGES, WELLS, WELLS % 3, WELLS % 2)
    value, gradient = jax.jit(value_and_gradient)(rows, _origin(*all_origins))
    alone, gradient_alone = jax.jit(value_and_gradient)(rows[once], _origin(*(array[once] for array in all_origins)))
    assert value > 0
    np.testing.assert_allclose(value, alone, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(gradient)[once], gradient_alone, atol=1e-6)
    np.testing.assert_array_equal(np.delete(gradient, once, axis=0), 0)


def test_images_of_one_well_are_no_negatives_of_each_other():
    twelve, everything = RNG.normal(size=(12, 2, 5)), np.ones((12, 2), bool)
    origin = _origin(IMAGES, WELLS)
    np.testing.assert_allclose(
        channels(twelve, everything, origin), _channels_by_loops(twelve, everything, origin), rtol=1e-5
    )
    replicated = _origin(IMAGES, WELLS, plate=np.arange(12) % 3, treatment=np.arange(12) % 2)
    by_loops = _replicates_by_loops(twelve[:, 0], replicated)
    np.testing.assert_allclose(replicates(twelve[:, 0], replicated), by_loops, rtol=1e-5)
    assert by_loops > 0


@pytest.mark.eight_devices
def test_copies_are_found_on_other_devices():
    mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4], axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    rows, everything = RNG.normal(size=(12, 2, 5)).astype(np.float32), np.ones((12, 2), bool)
    origin = _origin(IMAGES, WELLS)
    together = channels(*jax.device_put((rows, everything, jax.tree.map(jnp.asarray, origin)), split))
    np.testing.assert_allclose(together, _channels_by_loops(rows, everything, origin), rtol=1e-5)


@pytest.mark.eight_devices
def test_the_batch_is_that_of_all_devices():
    mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4], axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    embeddings = RNG.normal(size=(4, 3, 5))
    together = channels(*jax.device_put((embeddings, PRESENT, APART), split))
    np.testing.assert_allclose(together, channels(embeddings, PRESENT, APART), rtol=1e-5)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"present is \(4,\)"):
        info_nce(jnp.zeros((4, 3, 5)), jnp.ones(4, bool), APART, 0.1)
    with pytest.raises(ValueError, match=r"image is \(3,\), well \(3,\); expected two of \(4,\)"):
        info_nce(jnp.zeros((4, 3, 5)), jnp.ones((4, 3), bool), _origin(range(3)), 0.1)
    with pytest.raises(ValueError, match=r"present is \(4, 1\)"):
        channel_pull(jnp.zeros((4, 3, 5)), jnp.ones((4, 1), bool))
    with pytest.raises(ValueError, match=r"well \(4,\), plate \(3,\), treatment \(4,\); expected"):
        info_nce_replicates(jnp.zeros((4, 5)), _origin(range(4), plate=range(3)), 0.1)
